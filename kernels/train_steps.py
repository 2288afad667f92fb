"""The kernel: a program takes a cell from the queue and trains it for a stretch of steps.

One turn of the loop in train_cell begins with the weights after update i: it settles step i
(validation, T_train, T_val, records, stop rule), then makes step i + 1 (forward, loss, backward,
AdamW). With `fused_validation` one forward pass over N + V rows serves both halves; with
train_accuracy "after" the forward pass of step i + 1 counts the training set for step i. The turn
at the end of a stretch only settles. So it changes no bit where a stretch ends.

The phases of a step pass activations and their gradients through a scratch in global memory that
belongs to the program (a toy's stays in L1 and L2; 4,704 and 4,705 rows of width 500 take 34 MB a
program); debug_barrier() makes what one thread wrote visible to the others (a cell's first use of
it lies behind the barrier of forward_pass).

The queue holds the first stretch of every cell, then the second of every cell, and so on: in whole
chunks 441 cells would take 132 programs four rounds for three and a third. Whoever takes a stretch
waits until the one before it is done: it was taken earlier, by a program that is running and
itself waits for none but still earlier ones, so all come to their turn, however many programs the
GPU runs at once. Nothing else passes between programs.
"""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from .adamw import coefficients
from .embedding import embedding_forward, embedding_update
from .linear import linear_forward, linear_input_gradient, linear_update
from .loss import measure


class condition(tl.condition):
    """A while condition that forbids hoisting: what is constant over the steps stays inside.

    Offsets and masks of all phases would otherwise be kept in registers through every step, and
    spill (the kernel of commit 25db9ed, toy, sm_90, bytes a thread: tf32x3 512 with this, 1,992
    without; tf32 128 and 616).

    Every value that such a loop carries must be read in its body before it is set there: a flag
    that only the condition reads must not be, nor a name used before the loop for something else.
    Triton 3.6 drops such a value, and with the rebuilt loop goes this annotation: no error, only
    spills. Hence `last` in train_cell instead of a flag.
    """

    __triton_builtin__ = True

    def __init__(self, value, _semantic=None):
        super().__init__(value, disable_licm=True)

    def __bool__(self):  # for the interpreter, where tl.condition is always true
        return bool(self.condition)


class Packed(NamedTuple):
    """Packed parameters and moments: one row of layout.size for each listed cell."""

    p: Tensor  # [len(cells), size]
    m: Tensor
    v: Tensor


class Data(NamedTuple):
    x: Tensor  # [D, N + V, pitch of I0], or tokens int32 [D, N + V, K]
    y: Tensor  # int32 [D, N + V]
    targets: Tensor  # [D, C, O]; anything where neither mse nor nearest is asked for
    index: Tensor  # int32 [N + V]: 0, 1, 2, ... (rows of a full batch)
    order: Tensor  # int32 [R, E, N]; anything with a full batch
    data_index: Tensor  # int32 [M]
    order_index: Tensor  # int32 [M]


class Schedule(NamedTuple):
    """What depends on the step alone. Row j is step base + 1 + j."""

    corrections: Tensor  # float64 [steps, 2]
    mark: Tensor  # int32 [steps]: -2 no evaluation, -1 evaluation, j >= 0 and record number j


class Cells(NamedTuple):
    """Hyperparameters [G, M] and progress [M] of every cell, listed or not."""

    lr: Tensor
    weight_decay: Tensor
    step: Tensor
    t_train: Tensor
    t_val: Tensor
    diverged_at: Tensor
    epoch_correct: Tensor
    epoch_loss: Tensor
    train_correct: Tensor
    val_correct: Tensor
    best_train_correct: Tensor
    best_val_correct: Tensor


class Thresholds(NamedTuple):
    """Further ones, beside those of T_train and T_val, and when they were reached."""

    need_train_more: Tensor  # int64 [H]
    need_val_more: Tensor
    train_crossings: Tensor  # int64 [M, H]
    val_crossings: Tensor


class Records(NamedTuple):
    train_loss: Tensor  # float32 [M, T]
    val_loss: Tensor
    train_acc: Tensor
    val_acc: Tensor


class Numbers(NamedTuple):
    """Integers that vary between calls. Kernel arguments of their own: see UNSPECIALIZED."""

    until: int
    base: int  # the earliest step any listed cell starts from
    num_cells: int  # M
    need_train: int
    need_val: int
    stop: int  # 0 or 1
    num_thresholds: int  # H
    stretch: int  # steps a program trains a cell before it takes another
    num_epochs: int  # E, of order
    first_epoch: int
    num_curves: int  # T


# Triton compiles anew for an integer that is 1 or divisible by 16, unless told not to; inside a
# tuple it cannot be told.
UNSPECIALIZED = ("num_listed", *Numbers._fields)


@triton.jit
def forward_pass(
    p, x, labels, index, targets, scratch, turn,
    NUM_TRAIN: tl.constexpr, NUM_VAL: tl.constexpr, LAYOUT: tl.constexpr,
):  # fmt: skip
    """Outputs in scratch, then what loss.measure says of them."""
    SPEC: tl.constexpr = LAYOUT.spec
    L: tl.constexpr = SPEC.num_layers
    EMBEDDED: tl.constexpr = SPEC.embedding is not None
    NUM: tl.constexpr = NUM_TRAIN + NUM_VAL
    tl.debug_barrier()  # the update before this has written the parameters
    source = x
    if EMBEDDED:
        source = scratch + LAYOUT.features[0]
        embedding_forward(x, index, p, source, turn, NUM, LAYOUT)
        tl.debug_barrier()
    linear_forward(
        source, index, p, scratch + LAYOUT.features[1], turn, NUM, not EMBEDDED, 0, LAYOUT
    )
    tl.debug_barrier()
    for layer in tl.static_range(1, L):
        source = scratch + LAYOUT.features[layer]
        out = scratch + LAYOUT.features[layer + 1]
        linear_forward(source, index, p, out, turn, NUM, False, layer, LAYOUT)
        tl.debug_barrier()
    return measure(
        scratch + LAYOUT.features[L], scratch + LAYOUT.deltas[L],
        labels, index, targets, turn, NUM_TRAIN, NUM_VAL, LAYOUT,
    )  # fmt: skip


@triton.jit
def backward_layer(
    state, x, index, scratch, weight_step, bias_step, turn,
    LAYER: tl.constexpr, LAYOUT: tl.constexpr,
):  # fmt: skip
    SPEC: tl.constexpr = LAYOUT.spec
    B: tl.constexpr = SPEC.batch_size
    DENSE: tl.constexpr = LAYER == 0 and SPEC.embedding is None
    dy = scratch + LAYOUT.deltas[LAYER + 1]
    source = scratch + LAYOUT.features[LAYER]
    if DENSE:
        source = x
    else:
        dx = scratch + LAYOUT.deltas[LAYER]
        linear_input_gradient(dy, state.p, source, dx, turn, B, LAYER, LAYOUT)
    tl.debug_barrier()  # only now may this layer's weights change
    linear_update(dy, source, index, state, weight_step, bias_step, turn, B, DENSE, LAYER, LAYOUT)


@triton.jit
def backward_pass(
    state, x, index, scratch, cells, corrections, cell, num_cells, turn, LAYOUT: tl.constexpr
):
    """Layer by layer from the last: the gradient by the input, then the update."""
    SPEC: tl.constexpr = LAYOUT.spec
    L: tl.constexpr = SPEC.num_layers
    EMBEDDED: tl.constexpr = SPEC.embedding is not None
    dtype: tl.constexpr = state.p.dtype.element_ty
    tl.debug_barrier()  # measure has written the gradient by the outputs
    for layer in tl.static_range(L - 1, -1, -1):
        weight = LAYOUT.weight_group[layer]
        weight_step = coefficients(cells, corrections, weight, cell, num_cells, dtype)
        bias_step = weight_step
        if SPEC.bias:
            bias = LAYOUT.bias_group[layer]
            bias_step = coefficients(cells, corrections, bias, cell, num_cells, dtype)
        backward_layer(state, x, index, scratch, weight_step, bias_step, turn, layer, LAYOUT)
    if EMBEDDED:
        step = coefficients(cells, corrections, 0, cell, num_cells, dtype)
        dx = scratch + LAYOUT.deltas[0]
        embedding_update(x, index, dx, state, step, turn, SPEC.batch_size, LAYOUT)


@triton.jit
def note_best(latest, best, count):
    """The count of an evaluation, and the best so far."""
    tl.store(latest, count)
    tl.store(best, tl.maximum(tl.load(best), count))


@triton.jit
def note_crossings(needs, crossings, num, count, i):
    """Step i at each of `num` thresholds that is reached for the first time."""
    for h in range(num):
        crossed = (tl.load(crossings + h) < 0) & (count >= tl.load(needs + h))
        tl.store(crossings + h, i, mask=crossed)


@triton.jit
def train_cell(
    slot, cell, until, packed, data, schedule, cells, thresholds, records, numbers, scratch,
    LAYOUT: tl.constexpr,
):  # fmt: skip
    """Trains one cell from where it is to step `until`, its stop or its end."""
    SPEC: tl.constexpr = LAYOUT.spec
    N: tl.constexpr = SPEC.num_train
    V: tl.constexpr = SPEC.num_val
    B: tl.constexpr = SPEC.batch_size
    NB: tl.constexpr = N // B
    FUSED: tl.constexpr = SPEC.fused_validation
    AFTER: tl.constexpr = SPEC.train_accuracy == "after"
    X_PITCH: tl.constexpr = SPEC.num_tokens if SPEC.embedding is not None else LAYOUT.pitch[0]

    start = slot * LAYOUT.size
    state = Packed(packed.p + start, packed.m + start, packed.v + start)
    dataset = tl.load(data.data_index + cell).to(tl.int64)
    x = data.x + dataset * ((N + V) * X_PITCH)
    labels = data.y + dataset * (N + V)
    targets = data.targets + dataset * (SPEC.num_classes * SPEC.sizes[SPEC.num_layers])
    order = data.order + tl.load(data.order_index + cell).to(tl.int64) * numbers.num_epochs * N

    first = tl.load(cells.step + cell).to(tl.int32)
    t_train = tl.load(cells.t_train + cell).to(tl.int32)
    t_val = tl.load(cells.t_val + cell).to(tl.int32)
    epoch_correct = tl.load(cells.epoch_correct + cell)
    epoch_loss = tl.load(cells.epoch_loss + cell)

    diverged_at = tl.load(cells.diverged_at + cell).to(tl.int32)
    frozen = (diverged_at >= 0) | ((numbers.stop != 0) & (t_train >= 0) & (t_val >= 0))
    i = first
    # The loop settles steps i up to `last`; set to i - 1 it ends. No flag: see condition.
    last = tl.where((first < until) & (frozen == 0), until, first - 1)
    while condition(i <= last):
        row = i - 1 - numbers.base  # of the schedule
        mark = tl.load(schedule.mark + row, mask=i > first, other=-2)
        train_loss = tl.full((), 0.0, state.p.dtype.element_ty)
        train_correct = tl.full((), 0, tl.int32)
        val_loss = train_loss
        val_correct = train_correct
        if FUSED:
            train_loss, train_correct, val_loss, val_correct = forward_pass(
                state.p, x, labels, data.index, targets, scratch, i, N, V, LAYOUT
            )
        elif mark >= -1:
            _, _, val_loss, val_correct = forward_pass(
                state.p, x, labels, data.index + N, targets, scratch, i, 0, V, LAYOUT
            )
        if AFTER and not FUSED:  # noqa: SIM102 (decided by the compiler, unlike the next)
            if (mark >= -1) | (i < last):
                train_loss, train_correct, _, _ = forward_pass(
                    state.p, x, labels, data.index, targets, scratch, i, N, 0, LAYOUT
                )

        counted = epoch_correct
        if AFTER:
            counted = train_correct.to(tl.int64)
        if mark >= -1:
            t_train = tl.where((t_train < 0) & (counted >= numbers.need_train), i, t_train)
            t_val = tl.where((t_val < 0) & (val_correct >= numbers.need_val), i, t_val)
            note_best(cells.train_correct + cell, cells.best_train_correct + cell, counted)
            note_best(cells.val_correct + cell, cells.best_val_correct + cell, val_correct)
            num = numbers.num_thresholds
            at = cell * num
            note_crossings(
                thresholds.need_train_more, thresholds.train_crossings + at, num, counted, i
            )
            note_crossings(
                thresholds.need_val_more, thresholds.val_crossings + at, num, val_correct, i
            )
        if mark >= 0:
            at = cell * numbers.num_curves + mark
            tl.store(records.train_loss + at, (epoch_loss / NB).to(tl.float32))
            tl.store(records.val_loss + at, val_loss.to(tl.float32))
            tl.store(records.train_acc + at, (counted.to(tl.float64) / N).to(tl.float32))
            tl.store(records.val_acc + at, (val_correct.to(tl.float64) / V).to(tl.float32))

        finished = (numbers.stop != 0) & (t_train >= 0) & (t_val >= 0)
        if (i < last) & (finished == 0):
            batch = i % NB  # step i + 1 is number `batch` of its epoch, both from 0
            index = data.index
            if not SPEC.full_batch:
                index = order + (i // NB - numbers.first_epoch).to(tl.int64) * N + batch * B
            if not (FUSED or AFTER):
                train_loss, train_correct, _, _ = forward_pass(
                    state.p, x, labels, index, targets, scratch, i, B, 0, LAYOUT
                )
            if tl.abs(train_loss) < float("inf"):  # false for NaN, too
                epoch_correct = tl.where(batch == 0, 0, epoch_correct) + train_correct
                epoch_loss = tl.where(batch == 0, 0.0, epoch_loss) + train_loss
                corrections = schedule.corrections + 2 * (row + 1)
                num_cells = numbers.num_cells
                backward_pass(
                    state, x, index, scratch, cells, corrections, cell, num_cells, i, LAYOUT
                )
                i += 1
            else:
                diverged_at = i + 1
                last = i - 1
        else:
            last = i - 1

    tl.store(cells.step + cell, i)
    tl.store(cells.t_train + cell, t_train)
    tl.store(cells.t_val + cell, t_val)
    tl.store(cells.diverged_at + cell, diverged_at)
    tl.store(cells.epoch_correct + cell, epoch_correct)
    tl.store(cells.epoch_loss + cell, epoch_loss)


@triton.jit(do_not_specialize=UNSPECIALIZED)
def train_steps(
    queue,  # int32 [1], zero: the number of stretches taken
    done,  # int32 [num_listed], zero: stretches of each listed cell that are done
    listed,  # int32 [num_listed] cells
    num_listed,
    packed,
    data,
    schedule,
    cells,
    thresholds,
    records,
    scratch,  # [programs, layout.scratch]
    until,  # the fields of Numbers
    base,
    num_cells,
    need_train,
    need_val,
    stop,
    num_thresholds,
    stretch,
    num_epochs,
    first_epoch,
    num_curves,
    LAYOUT: tl.constexpr,
):
    """Trains every listed cell (none is frozen or done); the programs share the queue."""
    numbers = Numbers(
        until, base, num_cells, need_train, need_val, stop, num_thresholds, stretch,
        num_epochs, first_epoch, num_curves,
    )  # fmt: skip
    scratch += tl.program_id(0).to(tl.int64) * LAYOUT.scratch
    number = tl.atomic_add(queue, 1)
    while condition(number < num_listed * ((until - base + stretch - 1) // stretch)):
        slot = number % num_listed
        before = number // num_listed  # stretches of this cell
        ready = tl.atomic_add(done + slot, 0, sem="acquire")
        while ready < before:
            ready = tl.atomic_add(done + slot, 0, sem="acquire")
        tl.debug_barrier()  # every thread sees what the stretch before has written
        end = tl.minimum(base + (before + 1) * stretch, until)
        cell = tl.load(listed + slot).to(tl.int64)
        train_cell(
            slot.to(tl.int64), cell, end,
            packed, data, schedule, cells, thresholds, records, numbers, scratch, LAYOUT,
        )  # fmt: skip
        tl.debug_barrier()  # every thread has written
        tl.atomic_add(done + slot, 1, sem="release")
        number = tl.atomic_add(queue, 1)
