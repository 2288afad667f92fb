"""A learned embedding in front: x[n] = sum over k of table[token[n, k]], activated if asked for."""

import triton
import triton.language as tl

from .activation import keep
from .adamw import adamw
from .linear import multiply_add
from .tile import load_tile, phase_origin, store_tile


@triton.jit
def embedding_forward(
    tokens,  # [rows, K]
    index,  # [NUM] rows of tokens
    p,  # the cell's packed parameters, table [P, E] first
    x,  # [NUM, E], written
    turn,  # see tile.phase_origin
    NUM: tl.constexpr,
    LAYOUT: tl.constexpr,
):
    origin = phase_origin(turn, 100, LAYOUT)
    SPEC: tl.constexpr = LAYOUT.spec
    ROWS: tl.constexpr = LAYOUT.rows
    PITCH: tl.constexpr = LAYOUT.pitch[0]
    TILE: tl.constexpr = LAYOUT.edge[0].tile
    K: tl.constexpr = SPEC.num_tokens
    for r0 in range(0, NUM, ROWS):
        r = origin + r0 + tl.arange(0, ROWS)
        live = r < NUM
        rows = tl.load(index + r, mask=live, other=0)
        for e0 in range(0, PITCH, TILE):
            e = origin + e0 + tl.arange(0, TILE)
            acc = tl.zeros((ROWS, TILE), dtype=p.dtype.element_ty)
            for k in tl.static_range(K):
                token = tl.load(tokens + rows * K + k, mask=live, other=0)
                acc += load_tile(p, token, live, e, e < PITCH, PITCH)
            if SPEC.activate_embedding:
                acc = keep(acc, SPEC)
            store_tile(x, r, live, e, e < PITCH, PITCH, acc)


@triton.jit
def embedding_update(
    tokens,  # [rows, K]
    index,  # [NUM] rows of tokens
    dx,  # [NUM, E]
    state,  # the cell's packed p, m, v, table first, updated
    step,
    turn,  # see tile.phase_origin
    NUM: tl.constexpr,
    LAYOUT: tl.constexpr,
):
    """d table[t] = sum of dx[n] as often as n shows t, as a product: no atomics, one order."""
    origin = phase_origin(turn, 101, LAYOUT)
    SPEC: tl.constexpr = LAYOUT.spec
    ROWS: tl.constexpr = LAYOUT.rows
    PITCH: tl.constexpr = LAYOUT.pitch[0]
    TILE: tl.constexpr = LAYOUT.edge[0].tile
    K: tl.constexpr = SPEC.num_tokens
    TABLE: tl.constexpr = SPEC.embedding[0]
    TILE_T: tl.constexpr = LAYOUT.table_tile
    dtype: tl.constexpr = state.p.dtype.element_ty
    for t0 in tl.range(0, TABLE, TILE_T, num_stages=1):  # updates what it reads
        t = origin + t0 + tl.arange(0, TILE_T)
        for e0 in tl.range(0, PITCH, TILE, num_stages=1):
            e = origin + e0 + tl.arange(0, TILE)
            grad = tl.zeros((TILE_T, TILE), dtype=dtype)
            for r0 in range(0, NUM, ROWS):
                r = origin + r0 + tl.arange(0, ROWS)
                live = r < NUM
                rows = tl.load(index + r, mask=live, other=0)
                count = tl.zeros((TILE_T, ROWS), dtype=dtype)
                for k in tl.static_range(K):
                    token = tl.load(tokens + rows * K + k, mask=live, other=-1)
                    count += (token[None, :] == t[:, None]).to(dtype)
                dx_tile = load_tile(dx, r, live, e, e < PITCH, PITCH)
                grad = multiply_add(count, dx_tile, grad, SPEC)
            offset = t[:, None] * PITCH + e[None, :]
            mask = (t < TABLE)[:, None] & (e < PITCH)[None, :]
            adamw(state, offset, mask, grad, step, SPEC)
