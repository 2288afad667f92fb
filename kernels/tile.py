"""Tiles between memory and registers. A mask of None costs nothing: the tile lies inside."""

import triton
import triton.language as tl


@triton.jit
def phase_origin(turn, PHASE: tl.constexpr, LAYOUT: tl.constexpr):
    """Zero: where the indices of a phase of the step begin.

    With layout.Tiles.anew it is a zero that no two phases and no two turns of the step loop share:
    `turn` is the step, never negative, which the compiler does not know. From a plain zero it
    computes what the phases have in common once for all of them and for all steps, and keeps it
    in registers. The multiple of 64 keeps what is known of alignment.
    """
    origin = 0
    if LAYOUT.anew:
        origin = tl.minimum(turn + PHASE, 0) * 64
    return origin


@triton.jit
def within(index, END: tl.constexpr, LIMIT: tl.constexpr):
    """Mask of a tile that ends at END, or None if all of it lies below LIMIT."""
    mask = None
    if END > LIMIT:
        mask = index < LIMIT
    return mask


@triton.jit
def live_rows(r, NUM: tl.constexpr, ROWS: tl.constexpr):
    """Mask of a block of ROWS rows of which NUM exist in all, or None if they fill their blocks."""
    return within(r, (NUM + ROWS - 1) // ROWS * ROWS, NUM)


@triton.jit
def outer_and(row_mask, column_mask):
    """Mask of a tile from those of its rows and columns, each of which may be None."""
    if row_mask is None:
        mask = None if column_mask is None else column_mask[None, :]
    elif column_mask is None:
        mask = row_mask[:, None]
    else:
        mask = row_mask[:, None] & column_mask[None, :]
    return mask


@triton.jit
def load_masked(pointers, mask):
    """Zero where masked."""
    return tl.load(pointers) if mask is None else tl.load(pointers, mask=mask, other=0.0)


@triton.jit
def load_tile(base, rows, row_mask, columns, column_mask, pitch):
    """[rows, columns] of a row-major matrix, zero where masked."""
    at = base + (rows[:, None] * pitch + columns[None, :])
    return load_masked(at, outer_and(row_mask, column_mask))


@triton.jit
def store_tile(base, rows, row_mask, columns, column_mask, pitch, value):
    at = base + (rows[:, None] * pitch + columns[None, :])
    tl.store(at, value, mask=outer_and(row_mask, column_mask))
