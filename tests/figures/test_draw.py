"""Files: formats, determinism, fonts, errors; and no trace left in the caller's process."""

import subprocess
import sys
from xml.etree import ElementTree

import matplotlib
import pytest

from grokfast import figures
from grokfast.errors import EnvironmentProblem, UsageError
from grokfast.figures.caption import wrap
from grokfast.grid import Grid

MAGIC = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}


_OTHERS = {*figures.NEURON_KINDS, *figures.REPLAYED_KINDS, "outputs"}


@pytest.mark.parametrize("kind", [k for k in figures.KINDS if k not in _OTHERS])
def test_every_kind(small, kind, tmp_path):
    out = tmp_path / f"{kind}.png"
    assert figures.draw(small, kind, out=out) == [out]
    assert out.read_bytes().startswith(MAGIC["png"])
    assert [p.name for p in tmp_path.iterdir()] == [out.name], "no temporary is left"


@pytest.mark.parametrize("suffix", figures.FORMATS)
def test_the_same_bytes_again(small, suffix, tmp_path):
    first, second = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix.upper()}"
    figures.draw(small, "phases", out=first)
    with matplotlib.rc_context({"font.size": 20, "svg.hashsalt": "x", "axes.facecolor": "red"}):
        figures.draw(small, "phases", out=second)  # whatever the caller's style
    assert first.read_bytes().startswith(MAGIC[suffix])
    assert first.read_bytes() == second.read_bytes()


def test_a_figure_saved_by_its_caller_is_the_same_file(small, tmp_path):
    figures.draw(small, "phases", out=tmp_path / "a.pdf")
    figures.phase_diagram(small).savefig(tmp_path / "b.pdf")
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()


def test_fonts_are_embedded_as_truetype_and_svg_text_is_text(small, tmp_path):
    figures.draw(small, "phases", out=tmp_path / "a.pdf")
    pdf = (tmp_path / "a.pdf").read_bytes()
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    assert b"CreationDate" not in pdf
    figures.draw(small, "phases", out=tmp_path / "a.svg")
    assert "comprehension</text>" in (tmp_path / "a.svg").read_text()


def footnote(figure):
    return " ".join(figure.get_supxlabel().split())


def test_the_footnote_says_how_it_was_made(small):
    note = footnote(figures.phase_diagram(small))
    for part in ("0.9", "1,000 steps", "100,000 steps", "data seed 42", "model seed 102", "tanh"):
        assert part in note
    for part in ("Engine compiled on cpu", "float32", "grokfast 0.1.0"):
        assert part in note


def test_a_sign_stays_with_its_number():
    assert wrap("accuracy ≥ 0.9", 0.1, 8) == "accuracy\n≥\N{NO-BREAK SPACE}0.9"
    assert len(wrap(r"and $\xi$ = 0.35", 0.1, 8).split("\n")) == 2


def test_text_of_the_file_is_data(small, tmp_path):
    grid = small.grid
    name = "a$\\frac{$ <script>&\x01\x1b[31m \u202e"
    small.grid = Grid(experiment=grid.experiment, axes=grid.axes, name=name)
    small.provenance["engine"] = "$x^2$\x07"
    figures.draw(small, "phases", out=tmp_path / "a.svg")
    text = "".join(ElementTree.parse(tmp_path / "a.svg").getroot().itertext())
    assert "a$\\frac{$ <script>&" in text
    assert "$x^2$" in text
    assert "\u202e" not in text, "no control of the writing direction either"


def test_formats_kinds_and_options_are_checked(small, tmp_path):
    with pytest.raises(UsageError, match=r"\.png, \.pdf, \.svg"):
        figures.draw(small, "phases", out=tmp_path / "a.jpg")
    with pytest.raises(UsageError, match="no suffix"):
        figures.draw(small, "phases", out=tmp_path / "a")
    with pytest.raises(UsageError, match="did you mean smooth"):
        figures.draw(small, "smoth", out=tmp_path / "a.png")
    with pytest.raises(UsageError, match="cell belongs to --kind=curves and --kind=embeddings"):
        figures.draw(small, "phases", cells=[0], out=tmp_path / "a.png")
    with pytest.raises(UsageError, match="has no budget"):
        figures.draw(small, "curves", budget=10, out=tmp_path / "a.png")
    with pytest.raises(UsageError, match="x is 'lr'; give steps or epochs"):
        figures.draw(small, "curves", x="lr", out=tmp_path / "a.png")
    with pytest.raises(UsageError, match="band is 'quartiles'; give sd or none"):
        figures.draw(small, "curves", band="quartiles", out=tmp_path / "a.png")
    with pytest.raises(UsageError, match="band is of replicates; name their axes: --over"):
        figures.draw(small, "curves", band="sd", out=tmp_path / "a.png")
    with pytest.raises(UsageError, match="leave one out"):
        figures.draw(small, "tsne", until="end", epochs=[1], out=tmp_path / "a.png")
    with pytest.raises(UsageError, match="band belongs to --kind=curves and --kind=observables"):
        figures.draw(small, "times", band="sd", out=tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_leaves_the_old_one(small, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="no such folder"):
        figures.draw(small, "phases", out=tmp_path / "missing" / "a.png")
    out = tmp_path / "a.png"
    out.write_bytes(b"old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(EnvironmentProblem, match="full"):
        figures.draw(small, "phases", out=out)
    assert out.read_bytes() == b"old"


def test_notebooks_can_show_a_figure(small):
    assert figures.phase_diagram(small)._repr_png_().startswith(MAGIC["png"])


def test_imports_are_light_and_pyplot_is_never_loaded():
    code = (
        "import sys, grokfast.figures as f\n"
        "assert 'matplotlib' not in sys.modules\n"
        "f.draw, f.phase_diagram, f.smooth_diagram, f.curves, f.embedding_trajectories\n"
        "f.convergence_diagram, f.ipr_histograms, f.pruning_curves, f.preactivation_maps\n"
        "f.width_accuracy, f.grokking_times, f.neuron_rows, f.observables, f.hidden_layouts\n"
        "bad = {'torch', 'matplotlib.pyplot'} & set(sys.modules)\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'phase_digram'"):
        figures.phase_digram  # noqa: B018
