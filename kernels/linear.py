"""Linear layers of one cell, tile by tile: forward, gradient by the input, update.

Rows of a batch are R at a time, features in tiles; tiles that overhang are masked. `NUM` counts
the rows that exist; what a scratch buffer holds beyond them is never read.
"""

import triton
import triton.language as tl

from .activation import activate, activation_gradient
from .adamw import adamw


@triton.jit
def load_tile(base, rows, row_mask, columns, num_columns, pitch):
    """[rows, columns] of a row-major matrix, zero where masked."""
    mask = row_mask[:, None] & (columns < num_columns)[None, :]
    return tl.load(base + rows[:, None] * pitch + columns[None, :], mask=mask, other=0.0)


@triton.jit
def store_tile(base, rows, row_mask, columns, num_columns, pitch, value):
    mask = row_mask[:, None] & (columns < num_columns)[None, :]
    tl.store(base + rows[:, None] * pitch + columns[None, :], value, mask=mask)


@triton.jit
def multiply_add(a, b, acc, SPEC: tl.constexpr):
    """a b + acc, products by the precision the run asked for."""
    return tl.dot(a, b, acc, input_precision=SPEC.precision, out_dtype=acc.dtype)


@triton.jit
def source_rows(index, r, live, GATHER: tl.constexpr):
    """Which rows of the input matrix the batch rows r are."""
    rows = r
    if GATHER:
        rows = tl.load(index + r, mask=live, other=0)
    return rows


@triton.jit
def linear_forward(
    x,  # [rows, I]
    index,  # [NUM] rows of x, read if GATHER
    p,  # the cell's packed parameters
    y,  # [NUM, O], written
    NUM: tl.constexpr,
    GATHER: tl.constexpr,
    LAYER: tl.constexpr,
    LAYOUT: tl.constexpr,
):
    """y = x W^T + b, with the activation after all but the last layer."""
    SPEC: tl.constexpr = LAYOUT.spec
    ROWS: tl.constexpr = LAYOUT.rows
    INPUTS: tl.constexpr = LAYOUT.pitch[LAYER]
    OUTPUTS: tl.constexpr = LAYOUT.sizes[LAYER + 1]
    PITCH: tl.constexpr = LAYOUT.pitch[LAYER + 1]
    TILE_I: tl.constexpr = LAYOUT.tile[LAYER]
    TILE_O: tl.constexpr = LAYOUT.tile[LAYER + 1]
    w = p + LAYOUT.weight[LAYER]
    b = p + LAYOUT.bias[LAYER]
    for r0 in range(0, NUM, ROWS):
        r = r0 + tl.arange(0, ROWS)
        live = r < NUM
        rows = source_rows(index, r, live, GATHER)
        for o0 in range(0, OUTPUTS, TILE_O):
            o = o0 + tl.arange(0, TILE_O)
            acc = tl.zeros((ROWS, TILE_O), dtype=p.dtype.element_ty)
            for i0 in tl.range(0, INPUTS, TILE_I, num_stages=LAYOUT.stages):
                i = i0 + tl.arange(0, TILE_I)
                x_tile = load_tile(x, rows, live, i, INPUTS, INPUTS)
                w_tile = load_tile(w, o, o < OUTPUTS, i, INPUTS, INPUTS)
                acc = multiply_add(x_tile, tl.trans(w_tile), acc, SPEC)
            acc += tl.load(b + o, mask=o < OUTPUTS, other=0.0)[None, :]
            if SPEC.num_layers > LAYER + 1:
                acc = activate(acc, SPEC)
            store_tile(y, r, live, o, PITCH, PITCH, acc)


@triton.jit
def linear_input_gradient(
    dy,  # [NUM, O]
    p,  # the cell's packed parameters, before their update
    x,  # [NUM, I] outputs of the layer before, read unless LAYER is 0
    dx,  # [NUM, I], written
    NUM: tl.constexpr,
    LAYER: tl.constexpr,
    LAYOUT: tl.constexpr,
):
    """dx = (dy W) * act'(x): the gradient by what the layer before computed, before activation."""
    SPEC: tl.constexpr = LAYOUT.spec
    ROWS: tl.constexpr = LAYOUT.rows
    INPUTS: tl.constexpr = LAYOUT.pitch[LAYER]
    OUTPUTS: tl.constexpr = LAYOUT.sizes[LAYER + 1]
    PITCH: tl.constexpr = LAYOUT.pitch[LAYER + 1]
    TILE_I: tl.constexpr = LAYOUT.tile[LAYER]
    TILE_O: tl.constexpr = LAYOUT.tile[LAYER + 1]
    w = p + LAYOUT.weight[LAYER]
    for r0 in range(0, NUM, ROWS):
        r = r0 + tl.arange(0, ROWS)
        live = r < NUM
        for i0 in range(0, INPUTS, TILE_I):
            i = i0 + tl.arange(0, TILE_I)
            acc = tl.zeros((ROWS, TILE_I), dtype=p.dtype.element_ty)
            for o0 in tl.range(0, OUTPUTS, TILE_O, num_stages=LAYOUT.stages):
                o = o0 + tl.arange(0, TILE_O)
                dy_tile = load_tile(dy, r, live, o, PITCH, PITCH)
                w_tile = load_tile(w, o, o < OUTPUTS, i, INPUTS, INPUTS)
                acc = multiply_add(dy_tile, w_tile, acc, SPEC)
            if LAYER > 0:
                x_tile = load_tile(x, r, live, i, INPUTS, INPUTS)
                acc = activation_gradient(acc, x_tile, SPEC)
            store_tile(dx, r, live, i, INPUTS, INPUTS, acc)


@triton.jit
def linear_update(
    dy,  # [NUM, O]
    x,  # [rows, I]
    index,  # [NUM] rows of x, read if GATHER
    state,  # the cell's packed p, m, v, updated
    weight_step,
    bias_step,
    NUM: tl.constexpr,
    GATHER: tl.constexpr,
    LAYER: tl.constexpr,
    LAYOUT: tl.constexpr,
):
    """dW = dy^T x and db = sum of dy, each tile spent on its AdamW update at once."""
    SPEC: tl.constexpr = LAYOUT.spec
    ROWS: tl.constexpr = LAYOUT.rows
    INPUTS: tl.constexpr = LAYOUT.pitch[LAYER]
    OUTPUTS: tl.constexpr = LAYOUT.sizes[LAYER + 1]
    PITCH: tl.constexpr = LAYOUT.pitch[LAYER + 1]
    TILE_I: tl.constexpr = LAYOUT.tile[LAYER]
    TILE_O: tl.constexpr = LAYOUT.tile[LAYER + 1]
    dtype: tl.constexpr = state.p.dtype.element_ty
    # num_stages=1: no tile is prefetched in loops that update what they read.
    for o0 in tl.range(0, OUTPUTS, TILE_O, num_stages=1):
        o = o0 + tl.arange(0, TILE_O)
        db = tl.zeros((TILE_O,), dtype=dtype)
        for r0 in range(0, NUM, ROWS):
            r = r0 + tl.arange(0, ROWS)
            db += tl.sum(load_tile(dy, r, r < NUM, o, PITCH, PITCH), axis=0)
        adamw(state, LAYOUT.bias[LAYER] + o, o < OUTPUTS, db, bias_step, SPEC)

        for i0 in tl.range(0, INPUTS, TILE_I, num_stages=1):
            i = i0 + tl.arange(0, TILE_I)
            dw = tl.zeros((TILE_O, TILE_I), dtype=dtype)
            for r0 in tl.range(0, NUM, ROWS, num_stages=LAYOUT.stages):
                r = r0 + tl.arange(0, ROWS)
                live = r < NUM
                rows = source_rows(index, r, live, GATHER)
                dy_tile = load_tile(dy, r, live, o, PITCH, PITCH)
                x_tile = load_tile(x, rows, live, i, INPUTS, INPUTS)
                dw = multiply_add(tl.trans(dy_tile), x_tile, dw, SPEC)
            offset = LAYOUT.weight[LAYER] + o[:, None] * INPUTS + i[None, :]
            mask = (o < OUTPUTS)[:, None] & (i < INPUTS)[None, :]
            adamw(state, offset, mask, dw, weight_step, SPEC)
