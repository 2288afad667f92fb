"""Where a cell's numbers lie while a program trains it, and in tiles of which size.

Canonical tensors are unpadded ([M, O, I] as in nn.Linear). For the length of one call a cell's
parameters sit in one row of a packed [M, size] buffer: a pitch that keeps 16-byte loads
possible, zeros in between. The zeros stay zeros: activations map 0 to 0, so a padded feature has
no gradient, and AdamW leaves a zero without gradient at zero. Tiles may overhang: what lies
beyond the storage is masked, so a 64-wide tile costs arithmetic but no memory traffic.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .spec import Spec

MIN_TILE = 16  # tl.dot wants at least 16 along the reduced axis
# Outputs in one block of the loss, which holds several such blocks in registers: of 97 outputs (128
# columns) 16 rows at a time. With 64 the modular kernel of tests/kernels/offline.py would need 255
# registers for 128 (ieee, sm_90, Triton 3.7), a program less to a multiprocessor.
LOSS_BLOCK = 2048


@dataclass(frozen=True)
class Tiles:
    """Sizes of tiles: powers of two, at least 16.

    Attributes:
        edge: features of a tile of results.
        depth: features that one product sums over.
        rows: of a batch in one block.
        warps: of a program.
        stages: how many tiles of operands are under way at once.
        resident: programs that a multiprocessor holds at once.
        anew: compute indices and masks anew in every phase of a step: more instructions, fewer
            registers. See tile.phase_origin.
    """

    edge: int
    depth: int
    rows: int
    warps: int
    stages: int
    resident: int = 1
    anew: bool = False


@dataclass(frozen=True)
class Span:
    """How tiles cover a width: full ones up to `main`, then one of `tail` features (0: none)."""

    tile: int
    main: int
    tail: int


# The one place where sizes of tiles are decided, by what ptxas made of the toy kernels for sm_90
# and sm_80 (Triton 3.6, 3.7): tests/kernels/offline.py prints what spills, bench/predict.py the
# cycles that one step of one toy model takes at least. Not yet timed on a GPU.
# - Products of few rows are bound by the instructions around them, so what counts is how many
#   multiply-adds an instruction feeds. A warp's share of a tile should be large: 4 warps on 64 x 64
#   take 42,000 cycles in tf32x3, 8 warps 74,000.
# - Two programs to a multiprocessor: where one waits for memory, the other computes.
# - tf32x3 splits its factors in registers (linear.multiply_add), so copies that bypass them
#   (stages 2) only add instructions. tf32 has nothing to do in between.
# - ieee multiplies out of registers (FFMA): a product over 16 features at a time needs few of
#   them. In tiles of 64 it would take 109,000 cycles for 121,000, but spill 40 bytes a thread.
# - tf32 in 64 x 64 would take 31,000 cycles for 45,000, but spill 184 bytes.
# - 200 features are three tiles of 64 and a tail of 16, not four of 64: a third less arithmetic.
# - They hold for thousands of rows, too: in tf32x3 for sm_90 the modular kernel of offline.py takes
#   6.8 million cycles of memory pipes, 6.9 at depth 32, 10.1 in 64 x 64 x 128 with 8 warps, and
#   edges of 128 spill over 1,300 bytes.
TILES = {
    ("float32", "ieee"): Tiles(32, depth=16, rows=64, warps=4, stages=1, resident=3, anew=True),
    ("float32", "tf32x3"): Tiles(64, depth=64, rows=64, warps=4, stages=1, resident=2),
    ("float32", "tf32"): Tiles(32, depth=64, rows=64, warps=4, stages=2, resident=2, anew=True),
    ("float64", "ieee"): Tiles(16, depth=16, rows=64, warps=4, stages=1, resident=2, anew=True),
}
BEFORE_HOPPER = {("float32", "tf32x3"): Tiles(32, depth=32, rows=64, warps=4, stages=2, resident=2)}
HOPPER = 9  # compute capability


def choose_tiles(spec: Spec, capability: int = HOPPER) -> Tiles:
    kind = (spec.dtype, spec.precision)
    if capability < HOPPER and kind in BEFORE_HOPPER:
        return BEFORE_HOPPER[kind]
    return TILES[kind]


@dataclass(frozen=True)
class Layout:
    """Compile-time geometry, handed to the kernel whole. Offsets count elements.

    Widths are numbered 0..L: width 0 is the input, width L the output; layer l maps width l to
    width l + 1.
    """

    spec: Spec
    sizes: tuple[int, ...]
    pitch: tuple[int, ...]  # distance of rows whose entries run over width l
    edge: tuple[Span, ...]  # width l in tiles of results
    depth: tuple[Span, ...]  # width l in tiles of what is summed over
    batch: Span  # rows of a batch in tiles of what is summed over
    table_tile: int  # over rows of the embedding
    block_outputs: int  # a whole row of outputs, of classes
    block_classes: int
    offset: tuple[int, ...]  # of each tensor in a cell's row, in the contract's order
    size: int  # of a cell's row
    activated: tuple[bool, ...]  # width l is what an activation returns
    features: tuple[int, ...]  # offset of what is kept [rows, pitch] of width l in the scratch
    deltas: tuple[int, ...]  # same for the gradient of the loss by width l before activation
    scratch: int  # of a program
    rows: int
    loss_rows: int  # of outputs in one block
    warps: int
    stages: int
    anew: bool

    def numbers(self, kind: str) -> tuple[int, ...]:
        """By layer: which of a cell's tensors it is."""
        return tuple(n for n, (each, _) in enumerate(self.spec.parameters) if each == kind)

    @property
    def weight_group(self) -> tuple[int, ...]:
        return self.numbers("weight")

    @property
    def bias_group(self) -> tuple[int, ...]:
        """Empty without biases, as `bias`."""
        return self.numbers("bias")

    @property
    def weight(self) -> tuple[int, ...]:
        """Offset of W_l [O, pitch of I] in a cell's row."""
        return tuple(self.offset[n] for n in self.weight_group)

    @property
    def bias(self) -> tuple[int, ...]:
        """Offset of b_l [O]."""
        return tuple(self.offset[n] for n in self.bias_group)


def power_of_two(n: int) -> int:
    return 1 << (max(n, MIN_TILE) - 1).bit_length()


def round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def span(width: int, tile: int) -> Span:
    """Tiles of a width. A small tail overhangs by less than a full tile would."""
    tile = min(tile, power_of_two(width))
    main = width // tile * tile
    tail = power_of_two(width - main) if width > main else 0
    return Span(tile, main + tile, 0) if tail == tile else Span(tile, main, tail)


def pitch_of(width: int) -> int:
    """16 bytes of float32, so that four neighbours load at once; a scalar input stays scalar."""
    return width if width < 4 else round_up(width, 4)


def make_layout(spec: Spec, tiles: Tiles | None = None) -> Layout:
    tiles = tiles or choose_tiles(spec)
    pitch = tuple(pitch_of(n) for n in spec.sizes)
    longest = max(spec.batch_size + spec.num_val * spec.fused_validation, spec.num_val)

    rows = min(tiles.rows, power_of_two(longest))

    size, offset = 0, []
    for (_, layer), (length, *width) in spec.parameters.items():
        offset.append(size)
        size = round_up(size + length * (pitch[layer] if width else 1), 4)

    end = 0
    features, deltas = [], []
    for level, width in enumerate(pitch):
        if level == 0 and not spec.embedding:
            width = 0  # dense inputs are read where they are and need no gradient
        features.append(end)
        end = round_up(end + longest * width, 4)
        deltas.append(end)
        end = round_up(end + spec.batch_size * width, 4)

    return Layout(
        spec=spec,
        sizes=spec.sizes,
        pitch=pitch,
        edge=tuple(span(n, tiles.edge) for n in pitch),
        depth=tuple(span(n, tiles.depth) for n in pitch),
        batch=span(spec.batch_size, tiles.depth),
        table_tile=min(tiles.edge, power_of_two(spec.embedding[0])) if spec.embedding else 0,
        block_outputs=power_of_two(spec.sizes[-1]),
        block_classes=power_of_two(spec.num_classes),
        offset=tuple(offset),
        size=size,
        activated=(spec.activate_embedding, *[True] * (spec.num_layers - 1), False),
        features=tuple(features),
        deltas=tuple(deltas),
        scratch=end,
        rows=rows,
        loss_rows=min(rows, max(MIN_TILE, LOSS_BLOCK // power_of_two(spec.sizes[-1]))),
        warps=tiles.warps,
        stages=tiles.stages,
        anew=tiles.anew,
    )


def views(packed: Tensor, layout: Layout) -> list[Tensor]:
    """The canonical tensors of all cells as views into `packed` [M, size], in contract order."""
    found, parameters = [], layout.spec.parameters.items()
    for start, ((_, layer), (rows, *width)) in zip(layout.offset, parameters, strict=True):
        pitch = layout.pitch[layer] if width else 1
        block = packed[:, start : start + rows * pitch].view(len(packed), rows, pitch)
        found.append(block[:, :, : width[0]] if width else block[:, :, 0])
    return found


def pack(tensors: list[Tensor], cells: Tensor, layout: Layout) -> Tensor:
    """Canonical tensors of the cells listed -> zero-filled packed storage [len(cells), size]."""
    packed = tensors[0].new_zeros(len(cells), layout.size)
    for view, tensor in zip(views(packed, layout), tensors, strict=True):
        view.copy_(tensor[cells])
    return packed


def unpack(packed: Tensor, tensors: list[Tensor], cells: Tensor, layout: Layout) -> None:
    """The inverse of pack, in place."""
    for view, tensor in zip(views(packed, layout), tensors, strict=True):
        tensor[cells] = view


def pack_rows(train: Tensor, val: Tensor, pitch: int) -> Tensor:
    """Training rows, then validation rows, of each data set: [D, N + V, pitch], zero-filled."""
    both = torch.cat((train, val), dim=1)
    packed = both.new_zeros(*both.shape[:2], pitch)
    packed[:, :, : both.shape[2]] = both
    return packed
