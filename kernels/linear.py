"""Linear layers of one cell, tile by tile: forward, gradient by the input, update.

Rows of a batch are R at a time (what a product sums over: see layout.Tiles.depth), features in
tiles as layout.Span says: full ones in a loop, then a tail. Masks are there only where a tile
overhangs. `NUM` counts the rows that exist; what a scratch buffer holds beyond them is
never read.
"""

import triton
import triton.language as tl

from .activation import activated, activation_gradient, keep
from .adamw import adamw
from .tile import live_rows, load_masked, load_tile, outer_and, phase_origin, store_tile, within

# At most so many features per row are multiplied without tensor cores, which want 16.
NARROW = tl.constexpr(3)


@triton.jit
def tf32(x):
    """x rounded to the 10 bits of fraction that tensor cores read; ties away from zero."""
    return ((x.to(tl.uint32, bitcast=True) + 0x1000) & 0xFFFFE000).to(tl.float32, bitcast=True)


@triton.jit
def multiply_add(a, b, acc, SPEC: tl.constexpr):
    """a b + acc, products by the precision the run asked for.

    tf32x3: each factor is the sum of two of 11 bits (the tensor cores cut the lower one to theirs);
    what is left out, the product of the lower ones and what they lack of 24 bits, is below 2^-21 of
    a product: error 1.9e-7 of a 45 x 200 x 200 product, that of float32 1.8e-7. Triton's own tf32x3
    takes twice the instructions, because it looks for NaN in every factor.
    """
    if SPEC.precision == "tf32x3":
        a_high = tf32(a)
        b_high = tf32(b)
        acc = tl.dot(a - a_high, b_high, acc, input_precision="tf32")
        acc = tl.dot(a_high, b - b_high, acc, input_precision="tf32")
        acc = tl.dot(a_high, b_high, acc, input_precision="tf32")
    else:
        acc = tl.dot(a, b, acc, input_precision=SPEC.precision, out_dtype=acc.dtype)
    return acc


@triton.jit
def source_rows(index, r, live, GATHER: tl.constexpr):
    """Which rows of the input matrix the batch rows r are."""
    rows = r
    if GATHER:
        rows = load_masked(index + r, live)
    return rows


@triton.jit
def linear_forward(
    x,  # [rows, I], as kept (see activation.py)
    index,  # [NUM] rows of x, read if GATHER
    p,  # the cell's packed parameters
    y,  # [NUM, O], written
    turn,  # see tile.phase_origin
    NUM: tl.constexpr,
    GATHER: tl.constexpr,
    LAYER: tl.constexpr,
    LAYOUT: tl.constexpr,
):
    """y = x W^T + b; after all but the last layer y is what is kept of its activation."""
    ROWS: tl.constexpr = LAYOUT.rows
    origin = phase_origin(turn, 3 * LAYER, LAYOUT)
    EDGE: tl.constexpr = LAYOUT.edge[LAYER + 1]
    for r0 in range(0, NUM, ROWS):
        r = origin + r0 + tl.arange(0, ROWS)
        live = live_rows(r, NUM, ROWS)
        rows = source_rows(index, r, live, GATHER)
        for o0 in range(0, EDGE.main, EDGE.tile):
            forward_tile(x, p, y, r, rows, live, origin, o0, EDGE.tile, EDGE.main, LAYER, LAYOUT)
        if EDGE.tail > 0:
            END: tl.constexpr = EDGE.main + EDGE.tail
            forward_tile(x, p, y, r, rows, live, origin, EDGE.main, EDGE.tail, END, LAYER, LAYOUT)


@triton.jit
def forward_tile(
    x, p, y, r, rows, live, origin, o0,
    TILE: tl.constexpr, END: tl.constexpr, LAYER: tl.constexpr, LAYOUT: tl.constexpr,
):  # fmt: skip
    SPEC: tl.constexpr = LAYOUT.spec
    ROWS: tl.constexpr = LAYOUT.rows
    INPUTS: tl.constexpr = LAYOUT.pitch[LAYER]
    OUTPUTS: tl.constexpr = LAYOUT.sizes[LAYER + 1]
    PITCH: tl.constexpr = LAYOUT.pitch[LAYER + 1]
    DEPTH: tl.constexpr = LAYOUT.depth[LAYER]
    w = p + LAYOUT.weight[LAYER]
    o = origin + o0 + tl.arange(0, TILE)
    o_mask = within(o, END, OUTPUTS)
    acc = tl.zeros((ROWS, TILE), dtype=p.dtype.element_ty)
    if INPUTS <= NARROW:
        for i in tl.static_range(INPUTS):
            x_column = load_masked(x + rows * INPUTS + i, live)
            if LAYOUT.activated[LAYER]:
                x_column = activated(x_column, SPEC)
            acc += x_column[:, None] * load_masked(w + o * INPUTS + i, o_mask)[None, :]
    else:
        for i0 in tl.range(0, DEPTH.main, DEPTH.tile, num_stages=LAYOUT.stages):
            i = origin + i0 + tl.arange(0, DEPTH.tile)
            i_mask = within(i, DEPTH.main, INPUTS)
            acc = forward_product(x, w, acc, rows, live, o, o_mask, i, i_mask, LAYER, LAYOUT)
        if DEPTH.tail > 0:
            i = origin + DEPTH.main + tl.arange(0, DEPTH.tail)
            i_mask = within(i, DEPTH.main + DEPTH.tail, INPUTS)
            acc = forward_product(x, w, acc, rows, live, o, o_mask, i, i_mask, LAYER, LAYOUT)
    if SPEC.bias:
        acc += load_masked(p + LAYOUT.bias[LAYER] + o, o_mask)[None, :]
    if LAYOUT.activated[LAYER + 1]:
        acc = keep(acc, SPEC)
    store_tile(y, r, live, o, within(o, END, PITCH), PITCH, acc)


@triton.jit
def forward_product(
    x, w, acc, rows, live, o, o_mask, i, i_mask, LAYER: tl.constexpr, LAYOUT: tl.constexpr
):
    SPEC: tl.constexpr = LAYOUT.spec
    x_tile = load_tile(x, rows, live, i, i_mask, LAYOUT.pitch[LAYER])
    w_tile = load_tile(w, o, o_mask, i, i_mask, LAYOUT.pitch[LAYER])
    if LAYOUT.activated[LAYER]:
        x_tile = activated(x_tile, SPEC)
    return multiply_add(x_tile, tl.trans(w_tile), acc, SPEC)


@triton.jit
def linear_input_gradient(
    dy,  # [NUM, O]
    p,  # the cell's packed parameters, before their update
    x,  # [NUM, I] what is kept of the layer's input, read if that is activated
    dx,  # [NUM, I], written
    turn,  # see tile.phase_origin
    NUM: tl.constexpr,
    LAYER: tl.constexpr,
    LAYOUT: tl.constexpr,
):
    """dx = (dy W) * act'(x): the gradient by the layer's input, before activation if any."""
    ROWS: tl.constexpr = LAYOUT.rows
    INPUTS: tl.constexpr = LAYOUT.pitch[LAYER]
    origin = phase_origin(turn, 3 * LAYER + 1, LAYOUT)
    EDGE: tl.constexpr = LAYOUT.edge[LAYER]
    for r0 in range(0, NUM, ROWS):
        r = origin + r0 + tl.arange(0, ROWS)
        live = live_rows(r, NUM, ROWS)
        if INPUTS <= NARROW:
            for i in tl.static_range(INPUTS):
                narrow_input_gradient(dy, p, x, dx, r, live, origin, i, LAYER, LAYOUT)
        else:
            for i0 in range(0, EDGE.main, EDGE.tile):
                input_gradient_tile(
                    dy, p, x, dx, r, live, origin, i0, EDGE.tile, EDGE.main, LAYER, LAYOUT
                )
            if EDGE.tail > 0:
                END: tl.constexpr = EDGE.main + EDGE.tail
                input_gradient_tile(
                    dy, p, x, dx, r, live, origin, EDGE.main, EDGE.tail, END, LAYER, LAYOUT
                )


@triton.jit
def narrow_input_gradient(
    dy,
    p,
    x,
    dx,
    r,
    live,
    origin,
    i: tl.constexpr,
    LAYER: tl.constexpr,
    LAYOUT: tl.constexpr,
):
    """Column i of dx, as sums of products."""
    SPEC: tl.constexpr = LAYOUT.spec
    ROWS: tl.constexpr = LAYOUT.rows
    INPUTS: tl.constexpr = LAYOUT.pitch[LAYER]
    PITCH: tl.constexpr = LAYOUT.pitch[LAYER + 1]
    TILE: tl.constexpr = LAYOUT.edge[LAYER + 1].tile
    w = p + LAYOUT.weight[LAYER] + i
    acc = tl.zeros((ROWS,), dtype=p.dtype.element_ty)
    for o0 in tl.range(0, PITCH, TILE, num_stages=LAYOUT.stages):
        o = origin + o0 + tl.arange(0, TILE)
        dy_tile = load_tile(dy, r, live, o, o < PITCH, PITCH)
        w_column = load_masked(w + o * INPUTS, o < LAYOUT.sizes[LAYER + 1])
        acc += tl.sum(dy_tile * w_column[None, :], axis=1)
    if LAYOUT.activated[LAYER]:
        acc = activation_gradient(acc, load_masked(x + r * INPUTS + i, live), SPEC)
    tl.store(dx + r * INPUTS + i, acc, mask=live)


@triton.jit
def input_gradient_tile(
    dy, p, x, dx, r, live, origin, i0,
    TILE: tl.constexpr, END: tl.constexpr, LAYER: tl.constexpr, LAYOUT: tl.constexpr,
):  # fmt: skip
    SPEC: tl.constexpr = LAYOUT.spec
    ROWS: tl.constexpr = LAYOUT.rows
    INPUTS: tl.constexpr = LAYOUT.pitch[LAYER]
    DEPTH: tl.constexpr = LAYOUT.depth[LAYER + 1]
    w = p + LAYOUT.weight[LAYER]
    i = origin + i0 + tl.arange(0, TILE)
    i_mask = within(i, END, INPUTS)
    acc = tl.zeros((ROWS, TILE), dtype=p.dtype.element_ty)
    for o0 in tl.range(0, DEPTH.main, DEPTH.tile, num_stages=LAYOUT.stages):
        o = origin + o0 + tl.arange(0, DEPTH.tile)
        acc = gradient_product(dy, w, acc, r, live, o, DEPTH.main, i, i_mask, LAYER, LAYOUT)
    if DEPTH.tail > 0:
        o = origin + DEPTH.main + tl.arange(0, DEPTH.tail)
        LAST: tl.constexpr = DEPTH.main + DEPTH.tail
        acc = gradient_product(dy, w, acc, r, live, o, LAST, i, i_mask, LAYER, LAYOUT)
    if LAYOUT.activated[LAYER]:
        acc = activation_gradient(acc, load_tile(x, r, live, i, i_mask, INPUTS), SPEC)
    store_tile(dx, r, live, i, i_mask, INPUTS, acc)


@triton.jit
def gradient_product(
    dy, w, acc, r, live, o, END: tl.constexpr, i, i_mask, LAYER: tl.constexpr, LAYOUT: tl.constexpr
):
    SPEC: tl.constexpr = LAYOUT.spec
    OUTPUTS: tl.constexpr = LAYOUT.sizes[LAYER + 1]
    PITCH: tl.constexpr = LAYOUT.pitch[LAYER + 1]
    dy_tile = load_tile(dy, r, live, o, within(o, END, PITCH), PITCH)
    w_tile = load_tile(w, o, within(o, END, OUTPUTS), i, i_mask, LAYOUT.pitch[LAYER])
    return multiply_add(dy_tile, w_tile, acc, SPEC)


@triton.jit
def linear_update(
    dy,  # [NUM, O]
    x,  # [rows, I], as kept (see activation.py)
    index,  # [NUM] rows of x, read if GATHER
    state,  # the cell's packed p, m, v, updated
    weight_step,
    bias_step,
    turn,  # see tile.phase_origin
    NUM: tl.constexpr,
    GATHER: tl.constexpr,
    LAYER: tl.constexpr,
    LAYOUT: tl.constexpr,
):
    """dW = dy^T x and db = sum of dy, each tile spent on its AdamW update at once.

    Without biases bias_step is not read.
    """
    origin = phase_origin(turn, 3 * LAYER + 2, LAYOUT)
    EDGE: tl.constexpr = LAYOUT.edge[LAYER + 1]
    # num_stages=1: no tile is prefetched in loops that update what they read.
    for o0 in tl.range(0, EDGE.main, EDGE.tile, num_stages=1):
        update_rows(
            dy, x, index, state, weight_step, bias_step, origin, o0,
            EDGE.tile, EDGE.main, NUM, GATHER, LAYER, LAYOUT,
        )  # fmt: skip
    if EDGE.tail > 0:
        END: tl.constexpr = EDGE.main + EDGE.tail
        update_rows(
            dy, x, index, state, weight_step, bias_step, origin, EDGE.main,
            EDGE.tail, END, NUM, GATHER, LAYER, LAYOUT,
        )  # fmt: skip


@triton.jit
def update_rows(
    dy, x, index, state, weight_step, bias_step, origin, o0,
    TILE: tl.constexpr, END: tl.constexpr, NUM: tl.constexpr, GATHER: tl.constexpr,
    LAYER: tl.constexpr, LAYOUT: tl.constexpr,
):  # fmt: skip
    """Biases, if any, and rows of W of the outputs from o0 on."""
    SPEC: tl.constexpr = LAYOUT.spec
    ROWS: tl.constexpr = LAYOUT.rows
    INPUTS: tl.constexpr = LAYOUT.pitch[LAYER]
    OUTPUTS: tl.constexpr = LAYOUT.sizes[LAYER + 1]
    PITCH: tl.constexpr = LAYOUT.pitch[LAYER + 1]
    EDGE: tl.constexpr = LAYOUT.edge[LAYER]
    dtype: tl.constexpr = state.p.dtype.element_ty
    o = origin + o0 + tl.arange(0, TILE)
    o_mask = within(o, END, OUTPUTS)
    if SPEC.bias:
        db = tl.zeros((TILE,), dtype=dtype)
        for r0 in range(0, NUM, ROWS):
            r = origin + r0 + tl.arange(0, ROWS)
            live = live_rows(r, NUM, ROWS)
            db += tl.sum(load_tile(dy, r, live, o, within(o, END, PITCH), PITCH), axis=0)
        adamw(state, LAYOUT.bias[LAYER] + o, o_mask, db, bias_step, SPEC)

    if INPUTS <= NARROW:
        for i in tl.static_range(INPUTS):
            dw = tl.zeros((TILE,), dtype=dtype)
            for r0 in range(0, NUM, ROWS):
                r = origin + r0 + tl.arange(0, ROWS)
                live = live_rows(r, NUM, ROWS)
                x_column = load_masked(x + source_rows(index, r, live, GATHER) * INPUTS + i, live)
                if LAYOUT.activated[LAYER]:
                    x_column = activated(x_column, SPEC)
                dy_tile = load_tile(dy, r, live, o, within(o, END, PITCH), PITCH)
                dw += tl.sum(dy_tile * x_column[:, None], axis=0)
            adamw(state, LAYOUT.weight[LAYER] + o * INPUTS + i, o_mask, dw, weight_step, SPEC)
    else:
        for i0 in tl.range(0, EDGE.main, EDGE.tile, num_stages=1):
            update_tile(
                dy, x, index, state, weight_step, o, o_mask, origin, i0,
                TILE, END, EDGE.tile, EDGE.main, NUM, GATHER, LAYER, LAYOUT,
            )  # fmt: skip
        if EDGE.tail > 0:
            update_tile(
                dy, x, index, state, weight_step, o, o_mask, origin, EDGE.main,
                TILE, END, EDGE.tail, EDGE.main + EDGE.tail, NUM, GATHER, LAYER, LAYOUT,
            )  # fmt: skip


@triton.jit
def update_tile(
    dy, x, index, state, weight_step, o, o_mask, origin, i0,
    TILE_O: tl.constexpr, END_O: tl.constexpr, TILE_I: tl.constexpr, END_I: tl.constexpr,
    NUM: tl.constexpr, GATHER: tl.constexpr, LAYER: tl.constexpr, LAYOUT: tl.constexpr,
):  # fmt: skip
    SPEC: tl.constexpr = LAYOUT.spec
    INPUTS: tl.constexpr = LAYOUT.pitch[LAYER]
    PITCH: tl.constexpr = LAYOUT.pitch[LAYER + 1]
    i = origin + i0 + tl.arange(0, TILE_I)
    i_mask = within(i, END_I, INPUTS)
    dw = tl.zeros((TILE_O, TILE_I), dtype=state.p.dtype.element_ty)
    BATCH: tl.constexpr = LAYOUT.batch
    y_mask = within(o, END_O, PITCH)
    for r0 in tl.range(0, BATCH.main, BATCH.tile, num_stages=LAYOUT.stages):
        r = origin + r0 + tl.arange(0, BATCH.tile)
        live = within(r, BATCH.main, NUM)
        rows = source_rows(index, r, live, GATHER)
        dw = update_product(dy, x, dw, r, rows, live, o, y_mask, i, i_mask, LAYER, LAYOUT)
    if BATCH.tail > 0:
        r = origin + BATCH.main + tl.arange(0, BATCH.tail)
        live = within(r, BATCH.main + BATCH.tail, NUM)
        rows = source_rows(index, r, live, GATHER)
        dw = update_product(dy, x, dw, r, rows, live, o, y_mask, i, i_mask, LAYER, LAYOUT)
    offset = LAYOUT.weight[LAYER] + (o[:, None] * INPUTS + i[None, :])
    adamw(state, offset, outer_and(o_mask, i_mask), dw, weight_step, SPEC)


@triton.jit
def update_product(
    dy, x, dw, r, rows, live, o, y_mask, i, i_mask, LAYER: tl.constexpr, LAYOUT: tl.constexpr
):
    SPEC: tl.constexpr = LAYOUT.spec
    dy_tile = load_tile(dy, r, live, o, y_mask, LAYOUT.pitch[LAYER + 1])
    x_tile = load_tile(x, rows, live, i, i_mask, LAYOUT.pitch[LAYER])
    if LAYOUT.activated[LAYER]:
        x_tile = activated(x_tile, SPEC)
    return multiply_add(tl.trans(dy_tile), x_tile, dw, SPEC)
