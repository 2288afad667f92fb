"""Experiments that cannot be: one clear line each, before any work, and nothing left behind."""

import pytest

from grokfast.cli import main

TINY = ("modular-addition", "--set=task.p=5,model.width=4,model.seed=1", "--steps=4")
TOY = ("addition-regression", "--set=model.width=4", "--steps=4", "--lr=0.01", "--weight-decay=0")

BAD = [
    (("modular-addition", "--set=task.p=1"), "task.p is 1; give 2 to 1000"),
    (("modular-addition", "--set=task.fraction=0"), "task.fraction is 0.0; give less than 1"),
    (("modular-addition", "--set=task.fraction=1"), "task.fraction is 1.0; give less than 1"),
    (("modular-addition", "--set=task.corruption=1.5"), "task.corruption is 1.5; give 0 to 1"),
    (("modular-addition", "--set=task.operation=a+"), "'a+': it cannot be read; give addition"),
    (("modular-addition", "--set=task.operation=a*c"), "'c' is neither a nor b"),
    (("modular-addition", "--set=model.width=0"), "width is 0; give a finite value of 1"),
    (("modular-addition", "--set=model.bias=true"), "one_hot=true needs model.bias=false"),
    (("modular-addition", "--set=model.one_hot=false"), "gives tokens, but model.embedding_dim is"),
    (("modular-addition", "--set=model.dropout=1"), "give 0 <= dropout < 1"),
    ((*TOY, "--model-seed=none"), "leaves no generator to go on with; give model_seed a number"),
    ((*TOY, "--record=ipr"), "ipr: this experiment is no two-layer net on tokens"),
    ((*TOY, "--record=neuron_ipr", "--dry-run"), "ipr: this experiment is no two-layer net"),
    ((*TINY, "--record=nrms"), "did you mean norms?"),
    ((*TINY, "--set=record.observables=nrms"), "unknown observable 'nrms'"),
    ((*TINY, "--record=ipr:0"), "record.observables has 'ipr:0'; give NAME or NAME:STEPS"),
    ((*TINY, "--record=norms,norms:2"), "norms is to be recorded twice"),
    ((*TINY, "--record=curves:all,curves:3"), "record.curves is given twice"),
    (
        (*TINY, "--set=model.norm=batch,batch_size=1"),
        "model.norm=batch with batch_size 1 has a batch of 1 sample",
    ),
    (
        (*TINY, "--set=model.norm=batch,batch_size=11,batches.remainder=short"),
        "model.norm=batch with batch_size 11 has a batch of 1 sample",
    ),
    ((*TINY, "--set=batch_size=5"), "batch_size 5 does not divide the 12 training samples"),
    *(
        (
            (*TINY, f"--set=batch_size=13,batches.remainder={remainder}"),
            "batch_size 13 is more than the 12 training samples; batch_size=0 is the full batch",
        )
        for remainder in ("none", "dropped", "short")
    ),
    ((*TINY, "--set=evaluation.every=0"), "evaluation.every is 0; give a finite value of 1"),
    ((*TINY, "--set=evaluation.every=5"), "steps is 4: nothing would be evaluated"),
    ((*TINY, "--set=evaluation.thresholds=0.5+1.5"), "has 1.5; give 0 < each <= 1"),
    ((*TINY, "--set=evaluation.thresholds=0"), "has 0.0; give 0 < each <= 1"),
    ((*TINY, "--set=evaluation.train=running,batch_size=4"), "give evaluation.train=after"),
    ((*TINY, "--set=optimizer.kind=adamww"), "did you mean adamw?"),
    ((*TINY, "--set=loss=hings"), "loss='hings' is not one of cross_entropy, mse"),
    ((*TINY, "--engine=native", "--set=model.dropout=0.5"), "model.dropout 0.5"),
]


@pytest.mark.parametrize(
    ("arguments", "says"), BAD, ids=[" ".join(arguments[1:]) for arguments, _ in BAD]
)
def test_one_line_before_any_work(arguments, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["run", *arguments]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("grokfast: error: ")
    assert says in err
    assert err.count("\n") == 1
    assert out == "" or "--dry-run" in arguments
    assert not list(tmp_path.iterdir())
