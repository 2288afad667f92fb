"""The compiled engine: lockstep over blocks of cells under ``torch.compile``; CPU and CUDA.

The portable fallback. ``lockstep`` holds the mathematics of a step, ``lockstep_block`` the cells
that take it together, ``lockstep_compile`` what makes it fast.
"""

from __future__ import annotations

import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from grokfast.bucket import Bucket
from grokfast.engines import facts
from grokfast.engines.base import Tick
from grokfast.engines.lockstep import Spec
from grokfast.engines.lockstep_block import WINDOW, BatchRows, Block, room, split
from grokfast.engines.lockstep_compile import Graph, compiled_arithmetic, compiled_pass
from grokfast.engines.support import unsupported
from grokfast.errors import EnvironmentProblem
from grokfast.state import State

#: Activations of a layer, in numbers, of which a block of several cells would leave the cache.
_LARGE_LAYER = 2**18


class CompiledEngine:
    """See :class:`grokfast.engines.base.Engine` for the meaning of a step.

    A call gathers the listed cells that are not done into blocks, trains each block in lockstep
    to ``until``, and writes all of them back at the end. So finished cells drop out from call
    to call, and a call that ``tick`` interrupts leaves the state exactly as it was.

    On the CPU a block is a few cells whose state stays in the cache for the whole call, and each
    thread works on one of its own. Large networks are blocks of one, which take turns, so that all
    threads work until the end; where there is but one, all threads evaluate it. One thread trains
    it: two are no faster, and so its weights are the same to the bit whatever trains beside it. On
    CUDA a block is as large as it can be, and shrinks by halves as its cells finish: every other
    size would be compiled for.

    Results are the same to the bit for equal lists of unfinished cells, calls, device, number of
    threads and versions.

    Args:
        device: CPU or CUDA.
        threads: of the CPU; torch's own number where None.
    """

    name = "compiled"
    chunk = 500
    keeps_partial = False
    invariant = False
    #: Cells a block on the CPU, where there are enough of them for every thread (bench/LOG.md).
    cpu_block = 4
    #: Passes between two looks at whether to stop and whether any cell of a block still trains.
    glance = 25
    #: The same functions without torch.compile: for tests, and to see what compiling is worth.
    eager = False

    def __init__(self, device: torch.device, threads: int | None = None) -> None:
        self.device = device
        self.workers = 1
        self._at_most: int | None = None  # models a block, once memory has run out
        if device.type == "cpu":
            self.workers = threads or torch.get_num_threads()

    @property
    def detail(self) -> str:
        """The facts that decide the bits; a first call compiles a small function."""
        arithmetic = None if self.eager else compiled_arithmetic(self.device)
        return facts.listed(
            {
                "code": "eager" if arithmetic is None else "compiled",
                **facts.of_torch(self.device, self.workers),
                "arithmetic": arithmetic or facts.arithmetic(self.device, 1),
                "draws": facts.draws(),
            }
        )

    def unsupported(self, bucket: Bucket) -> str | None:
        if self.device.type == "cpu":
            return unsupported(self.name, bucket, precision=("ieee",))
        return unsupported(self.name, bucket)

    def measures(self, bucket: Bucket) -> frozenset[str]:
        return frozenset()

    def advance(
        self, bucket: Bucket, state: State, cells: Tensor, until: int, tick: Tick | None = None
    ) -> None:
        while True:
            plan = self._plan(bucket, state, cells.cpu(), until)
            call = _Call(bucket, state, until, self.glance, self.eager, self._room)
            try:
                with _arithmetic(bucket, self.device):
                    trained = call.run(plan, self.workers, tick)
                break
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                self._make_do_with_less(max(map(len, plan)))
        for block in trained:
            block.scatter(state)

    def _make_do_with_less(self, models: int) -> None:
        """Blocks of half as many from now on; the state is that before the call that failed.

        Raises:
            EnvironmentProblem: a block has one model already.
        """
        if models <= 1:
            raise EnvironmentProblem(
                f"not enough memory on {self.device} for a single model",
                hint="--dry-run shows what a run needs",
            )
        self._at_most = models // 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        warnings.warn(
            f"not enough memory for {models} models at once; going on with {self._at_most}",
            RuntimeWarning,
            stacklevel=3,
        )

    def _plan(self, bucket: Bucket, state: State, cells: Tensor, until: int) -> list[Tensor]:
        """The listed cells that have steps to do, by block; those of a block are at one step."""
        step = state.step.cpu()
        cells = cells[~state.frozen(bucket).cpu()[cells] & (step[cells] < until)]
        size = self._block_size(bucket, len(cells))
        return [
            part
            for start in step[cells].unique().tolist()
            for block in split(bucket, cells[step[cells] == start], size)
            for part in block.split(self._at_most or len(block))
        ]

    def _room(self, bucket: Bucket, cells: Tensor) -> int:
        """Models that the tensors of a block of these cells have room for."""
        if self.device.type == "cpu":
            return len(cells)
        models = room(bucket, cells)
        return min(models, self._at_most or models)

    def _block_size(self, bucket: Bucket, cells: int) -> int | None:
        """Cells a block; None for as many as there are."""
        if self.device.type != "cpu":
            return None
        assert bucket.stacked is not None
        widest = max(shape[-1] for shape in bucket.shapes) * bucket.stacked.positions
        if bucket.batch_size * widest > _LARGE_LAYER:
            return 1
        return self.cpu_block if cells >= self.cpu_block * self.workers else 1


class _Call:
    """One call of ``advance``: a queue of blocks, and threads that train one each at a time."""

    #: Passes after which blocks of a large network let the next one have the thread.
    turn = 25

    def __init__(
        self,
        bucket: Bucket,
        state: State,
        until: int,
        glance: int,
        eager: bool,
        room: Callable[[Bucket, Tensor], int],
    ) -> None:
        self.bucket, self.state, self.until = bucket, state, until
        self.glance, self.eager, self.room = glance, eager, room
        self.device = state.step.device
        self.stop = threading.Event()
        self.done: list[int] = []  # model-steps by block, each entry with one writer
        self.rows = BatchRows(bucket)
        self.queue: deque[Iterator[None]] = deque()  # blocks being trained, turn by turn
        self.blocks: list[Block] = []
        self.threads = 1  # that share an evaluation

    def run(self, plan: list[Tensor], workers: int, tick: Tick | None) -> list[Block]:
        """The trained blocks, none of them where ``tick`` asked to stop."""
        self.done = [0] * len(plan)
        blocks = max(1, len(plan))
        assert self.bucket.stacked is not None
        if self.bucket.stacked.large and blocks == 1 and self.device.type == "cpu":
            self.threads = workers
        workers = min(workers, blocks)
        self.queue.extend(self._training(k, cells) for k, cells in enumerate(plan))
        pool = ThreadPoolExecutor(workers, "grokfast", partial(_set_up_thread, self.device))
        futures = [pool.submit(self._work) for _ in range(workers)]
        in_a_hurry = True
        try:
            interrupted = self._watch(futures, tick)
            in_a_hurry = interrupted
        except Exception:
            in_a_hurry = False
            raise
        finally:
            self.stop.set()
            # Who asks to stop does not wait for a compilation that nobody needs any more: its
            # thread ends by itself. Nothing of a block is in the state before all are done.
            pool.shutdown(wait=not in_a_hurry, cancel_futures=True)
        return [] if interrupted else self.blocks

    def _watch(self, futures: list[Future[None]], tick: Tick | None) -> bool:
        """Until all is done or a block fails; True where ``tick`` asked to stop before that."""
        waiting: set[Future[None]] = set(futures)
        while waiting:
            finished, waiting = wait(waiting, timeout=0.05, return_when=FIRST_EXCEPTION)
            stop = tick is not None and tick(sum(self.done))
            if stop and waiting:  # and where a signal ended a compiler: what that says is no news
                return True
            for future in finished:
                future.result()
            if stop:
                return False
        return False

    @torch.no_grad()
    def _work(self) -> None:
        """One thread: a turn of the block at the head of the queue, then of the next."""
        while not self.stop.is_set():
            try:
                training = self.queue.popleft()
            except IndexError:  # what is left is in the hands of other threads
                return
            if next(training, _END) is not _END:
                self.queue.append(training)

    def _training(self, k: int, cells: Tensor) -> Iterator[None]:
        """Trains one block; yields where another one may have its turn."""
        models = self.room(self.bucket, cells)
        block = Block(self.bucket, self.state, cells, self.until, self.rows, models)
        spec, layout = Spec.of(self.bucket), block.layout(self.eager)
        layouts = {False: layout, True: replace(layout, threads=self.threads)}
        passes = {
            kind: Graph(compiled_pass(spec, *kind, layouts[kind[0]]), block.tensors)
            for kind in block.kinds()
        }
        going, last = block.size, self.until - block.start
        for i in range(block.passes):
            if self.stop.is_set():
                break
            if i % WINDOW == 0:
                block.load(i)
            for kind in block.kinds_of(i):
                if self.threads > 1:
                    torch.set_num_threads(layouts[kind[0]].threads)
                passes[kind]()
            block.record(i)
            self.done[k] += going if i < last else 0
            if (i + 1) % self.glance == 0:
                going = int(block.models.live.sum())
                if not going:
                    break
            if spec.net.large and (i + 1) % self.turn == 0:
                yield
        self.blocks.append(block)


_END = object()


def out_of_memory(error: Exception) -> bool:
    """Whether this is what torch raises where an allocator finds no memory."""
    told = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return told or "DefaultCPUAllocator" in str(error)


def _set_up_thread(device: torch.device) -> None:
    """A CPU worker computes alone: what other workers do is the parallelism."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(1)


@contextmanager
def _arithmetic(bucket: Bucket, device: torch.device) -> Iterator[None]:
    """Torch's process-wide settings as the workers need them, and afterwards as they were."""
    threads = torch.get_num_threads()
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    if device.type == "cuda":
        matmul.fp32_precision = "tf32" if bucket.cell.precision == "tf32" else "ieee"
    try:
        yield
    finally:
        torch.set_num_threads(threads)  # MKL keeps one number for all threads
        if device.type == "cuda":
            matmul.fp32_precision = before
