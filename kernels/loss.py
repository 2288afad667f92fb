"""Losses over rows of outputs, their gradients, and predictions. Always in true float32.

Blocks are [R, O] with O padded to a power of two; padded columns are masked here, padded rows by
the caller.
"""

import triton
import triton.language as tl

from .tile import phase_origin


@triton.jit
def cross_entropy(z, label, column, NUM: tl.constexpr, OUTPUTS: tl.constexpr):
    """-log_softmax[label] of each row [R], and the gradient [R, O] of their mean over NUM rows."""
    z = tl.where(column < OUTPUTS, z, float("-inf"))
    z = z - tl.max(z, axis=1)[:, None]
    e = tl.exp(z)
    total = tl.sum(e, axis=1)
    hit = column == label[:, None]
    row_loss = tl.log(total) - tl.sum(tl.where(hit, z, 0.0), axis=1)
    grad = (e / total[:, None] - hit.to(z.dtype)) * (1.0 / NUM)
    return row_loss, grad


@triton.jit
def mse(y, target, column, NUM: tl.constexpr, OUTPUTS: tl.constexpr):
    """Mean squared error of each row [R], and the gradient [R, O] of their mean over NUM rows."""
    error = tl.where(column < OUTPUTS, y - target, 0.0)
    return tl.sum(error * error, axis=1) / OUTPUTS, error * (2.0 / (NUM * OUTPUTS))


@triton.jit
def argmax(y, column, OUTPUTS: tl.constexpr):
    """Index of the first maximum of each row."""
    return tl.argmax(tl.where(column < OUTPUTS, y, float("-inf")), axis=1)


@triton.jit
def nearest(
    y,  # [R, O]
    targets,  # [C, O]
    column,
    CLASSES: tl.constexpr,
    BLOCK_C: tl.constexpr,
    OUTPUTS: tl.constexpr,
):
    """argmin over c of |y - t_c|^2, as the argmax of y . t_c - |t_c|^2 / 2, in ieee products."""
    c = tl.arange(0, BLOCK_C)
    mask = (c < CLASSES)[:, None] & (column < OUTPUTS)
    t = tl.load(targets + c[:, None] * OUTPUTS + column, mask=mask, other=0.0)
    half_norm = 0.5 * tl.sum(t * t, axis=1)
    score = tl.dot(y, tl.trans(t), input_precision="ieee", out_dtype=y.dtype) - half_norm[None, :]
    return tl.argmax(tl.where((c < CLASSES)[None, :], score, float("-inf")), axis=1)


@triton.jit
def measure(
    y,  # [NUM_TRAIN + NUM_VAL, O] outputs of the network
    dy,  # [NUM_TRAIN, O], written
    labels,  # [rows]
    index,  # [NUM_TRAIN + NUM_VAL] rows of labels
    targets,  # [C, O], read for mse and nearest
    turn,  # see tile.phase_origin
    NUM_TRAIN: tl.constexpr,
    NUM_VAL: tl.constexpr,
    LAYOUT: tl.constexpr,
):
    """Loss (mean) and correct predictions over the training rows, then the validation rows.

    Training rows come first; dy is the gradient of their loss.
    """
    origin = phase_origin(turn, 102, LAYOUT)
    SPEC: tl.constexpr = LAYOUT.spec
    ROWS: tl.constexpr = LAYOUT.loss_rows
    OUTPUTS: tl.constexpr = LAYOUT.sizes[SPEC.num_layers]
    PITCH: tl.constexpr = LAYOUT.pitch[SPEC.num_layers]
    BLOCK_O: tl.constexpr = LAYOUT.block_outputs
    CLASSES: tl.constexpr = SPEC.num_classes
    BLOCK_C: tl.constexpr = LAYOUT.block_classes
    NUM: tl.constexpr = NUM_TRAIN + NUM_VAL
    # The divisor of the gradient; a pass without training rows throws the gradient away.
    BATCH: tl.constexpr = SPEC.batch_size
    dtype: tl.constexpr = y.dtype.element_ty
    column = (origin + tl.arange(0, BLOCK_O))[None, :]
    train_loss = tl.full((), 0.0, dtype)
    val_loss = tl.full((), 0.0, dtype)
    train_correct = tl.full((), 0, tl.int32)
    val_correct = tl.full((), 0, tl.int32)
    for r0 in range(0, NUM, ROWS):
        r = origin + r0 + tl.arange(0, ROWS)
        live = r < NUM
        label = tl.load(labels + tl.load(index + r, mask=live, other=0), mask=live, other=0)
        inside = live[:, None] & (column < OUTPUTS)
        out = tl.load(y + r[:, None] * PITCH + column, mask=inside, other=0.0)
        if SPEC.loss == "mse":
            at = targets + label[:, None] * OUTPUTS + column
            row_loss, grad = mse(out, tl.load(at, mask=inside, other=0.0), column, BATCH, OUTPUTS)
        else:
            tl.static_assert(SPEC.loss == "cross_entropy")
            row_loss, grad = cross_entropy(out, label, column, BATCH, OUTPUTS)
        if SPEC.predict == "nearest":
            guess = nearest(out, targets, column, CLASSES, BLOCK_C, OUTPUTS)
        else:
            tl.static_assert(SPEC.predict == "argmax")
            guess = argmax(out, column, OUTPUTS)
        correct = (guess == label).to(tl.int32)
        train = r < NUM_TRAIN
        val = live & (r >= NUM_TRAIN)
        train_loss += tl.sum(tl.where(train, row_loss, 0.0))
        val_loss += tl.sum(tl.where(val, row_loss, 0.0))
        train_correct += tl.sum(tl.where(train, correct, 0))
        val_correct += tl.sum(tl.where(val, correct, 0))
        if NUM_TRAIN > 0:
            at = dy + r[:, None] * PITCH + column
            tl.store(at, grad, mask=train[:, None] & (column < PITCH))
    return train_loss / max(NUM_TRAIN, 1), train_correct, val_loss / max(NUM_VAL, 1), val_correct
