"""bench/RESULTS.md is what ``make results`` writes from the committed files."""

import re
import shutil
from pathlib import Path

import pytest

import grokfast as gf

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def report(monkeypatch):
    """bench/report.py as a module, which has read nothing."""
    monkeypatch.syspath_prepend(BENCH)
    import committed
    import report

    committed.load.cache_clear()
    committed.agreements.cache_clear()
    yield report
    committed.load.cache_clear()
    committed.agreements.cache_clear()


def test_the_page_is_what_the_committed_files_say(report):
    assert report.PAGE == BENCH / "RESULTS.md"
    assert report.page() == report.PAGE.read_text(encoding="utf-8"), "run make results"


def test_pictures_on_the_page_are_there():
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", (BENCH / "RESULTS.md").read_text(encoding="utf-8"))
    assert len(pictures) >= 10
    assert not [p for p in pictures if not (BENCH / p).exists()]


def test_a_file_that_is_not_there_and_one_of_some_cells(report, tmp_path, monkeypatch):
    import committed
    import shabalin

    monkeypatch.setattr(committed, "RESULTS", tmp_path)
    text = shabalin.page()
    assert "`addition-classification.h5`: not computed (`make diagrams" in text
    assert (
        "| Do all four phases occur in toy addition, and where the figures have them? | Not "
        in text
    )
    shard = "addition-regression.shard-1-of-4.h5"
    shutil.copy(BENCH / "results" / shard, tmp_path / "addition-regression.300000-steps.h5")
    committed.load.cache_clear()
    text = shabalin.page()
    assert "111 of 441 cells so far, 100,000 steps; `native`, float32" in text
    assert re.search(r"addition-regression: 0 of the \d+ cells that only memorise", text)
    assert "| Figures 3 and 4 | Both toy tasks" in text
    assert "| 1 of 2 files |" in text


def test_seeds_are_counted_over_panels(report, tmp_path, monkeypatch):
    import committed
    import shabalin

    grid = gf.preset("addition-classification").grid(
        lr=[1e-3], weight_decay=[0.0, 1.0], data_seed=[41, 42], width=4, steps=5
    )
    gf.run(grid.grid(**{"model.seed": [101, 102]}), out=tmp_path / "r.h5", engine="reference")
    monkeypatch.setattr(committed, "RESULTS", tmp_path)
    shutil.copy(tmp_path / "r.h5", tmp_path / "addition-classification.panels.h5")
    text = shabalin.page()
    assert "Of 2 pairs of learning rate and decay with all 4 seeds, 2 have the same phase" in text
    assert "| 41 | 101 | 0 | 0 | 0 | 2 |" in text
    assert "some seed groks in 0, all in 0" in text
