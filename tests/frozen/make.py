"""Makes the frozen files of one schema version: ``python make.py FOLDER``, with a grokfast of that
version on the path; then ``zip -9 vN.zip *`` in it. Every version's are made once, and kept.

``toy.h5`` is finished, ``half.h5`` its first shard of two; ``native.h5``, ``reference.h5`` (the
same cells) and ``digits.h5`` (minibatches) are of runs that a signal ended, and have checkpoints
beside them. ``v1.zip`` was made by commit 3b8e246, the last of schema version 1.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import grokfast as gf
from grokfast.engines import make_engine
from grokfast.trainer import Interrupted


def toy() -> gf.Grid:
    """Four cells that keep all that could be kept in version 1; one generalises at step 236 and
    memorises at 382."""
    keep = {"record.weights": True, "record.embeddings": 50, "record.curve_points": 20}
    return gf.preset("addition-classification").grid(
        lr=[1e-2, 3e-2],
        weight_decay=[0.0, 2.0],
        width=8,
        steps=450,
        stop="never",
        **{"optimizer.encoder_lr": 0.03, **keep},
    )


def digits() -> gf.Grid:
    """Two cells in minibatches, evaluated at log-spaced epochs; both events of one lie around step
    70, of the other around 120."""
    return gf.preset("mnist-digits").grid(
        lr=[3e-3, 1e-2],
        weight_decay=0.1,
        width=8,
        init_scale=1.0,
        batch_size=500,
        steps=140,
        stop="never",
    )


def interrupted(grid: gf.Grid, out: Path, engine: str, at: int) -> None:
    """A run that SIGINT ends when each cell is at this step."""
    kind = type(make_engine(engine, "cpu", 1))
    advance = kind.advance

    def stopping(self, bucket, state, cells, until, *more):
        advance(self, bucket, state, cells, min(until, at), *more)
        if int(state.step.min()) >= at:
            os.kill(os.getpid(), signal.SIGINT)

    kind.advance = stopping
    try:
        gf.run(grid, out=out, engine=engine, device="cpu", threads=1, progress=False)
    except Interrupted:
        return
    finally:
        kind.advance = advance
    raise RuntimeError(f"{out} was finished before it was interrupted")


def make(folder: Path) -> None:
    folder.mkdir()
    common = {"device": "cpu", "threads": 1, "progress": False}
    gf.run(toy(), out=folder / "toy.h5", engine="native", **common)
    gf.run(toy(), out=folder / "half.h5", engine="native", shard=(1, 2), **common)
    (folder / "half.h5.ckpt").unlink()
    for engine in ("native", "reference"):
        interrupted(toy(), folder / f"{engine}.h5", engine, at=300)
    interrupted(digits(), folder / "digits.h5", "native", at=100)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
