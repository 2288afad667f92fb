"""A user's own task in a file of its own, and what a test has happen on the workers that import it.

In the folder GROKFAST_TEST_FOLDER: while there is a file ``hold``, no worker ends a chunk; each
tells in ``busy.PID`` that it is in one, and in ``log`` what it has trained. The first worker that
finds ``fault`` after a hold takes it, and dies in its next commit. ``broken`` lists data seeds that
cannot be built.
"""

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

import grokfast as gf
from grokfast import trainer
from grokfast.engines import native
from grokfast.tasks import Addition

FOLDER = Path(os.environ["GROKFAST_TEST_FOLDER"])


@gf.task("held")
@dataclass(frozen=True, kw_only=True)
class Held(Addition):
    def build(self):
        broken = FOLDER / "broken"
        if broken.exists() and str(self.seed) in broken.read_text().split():
            raise RuntimeError(f"no data for seed {self.seed}")
        return super().build()


class HoldingEngine(native.NativeEngine):
    """Saves after every chunk of 40 steps."""

    chunk = 40

    def advance(self, bucket, state, cells, until, tick=None):
        before = state.step.clone()
        (FOLDER / f"busy.{os.getpid()}").touch()
        while (FOLDER / "hold").exists() and not (tick and tick(0)):
            time.sleep(0.02)
        with contextlib.suppress(FileNotFoundError):
            (FOLDER / "fault").unlink()
            os.environ["GROKFAST_FAULT"] = "synced"
        super().advance(bucket, state, cells, until, tick)
        lines = [
            f"{bucket.lr[-1, m]} {bucket.weight_decay[-1, m]} {bucket.data_index[m]} "
            f"{int(before[m])} {int(state.step[m])}\n"
            for m in range(bucket.num_cells)
            if state.step[m] > before[m]
        ]
        with (FOLDER / "log").open("a") as log:
            log.write("".join(lines))


native.NativeEngine = HoldingEngine
trainer.SAVE_EVERY, trainer.SAVE_SHARE = 0.0, 1e9
