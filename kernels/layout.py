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


@dataclass(frozen=True)
class Tiles:
    """Tile edge over features, rows of a batch in one block, warps, pipeline depth of reads."""

    edge: int
    rows: int
    warps: int
    stages: int


# The one place where sizes of tiles are decided, by what ptxas made of the toy and MNIST kernels
# for sm_90 and sm_80 (tests/kernels/offline.py prints it; Triton 3.6, 3.7). Not yet timed on a GPU.
# - A program is alone on its multiprocessor (255 registers x 256 threads), so one tile's loads
#   must be long enough to cover their latency: 64 x 64 where tensor cores multiply. The loops over
#   the wide layers then hold no spilled value.
# - ieee multiplies out of registers (FFMA): 64 x 64 spills 632 to 2,296 bytes a thread, 32 x 32
#   none, and it pads 200 to 224 rather than 256.
# - 8 warps: with 4, half of a multiprocessor's slots stay empty while a tile loads; with 16, 128
#   registers a thread do not hold a tile (1,856 bytes spilled, tf32x3).
# - stages 2: copies of the next tile run during the product. The update loop never pipelines.
# - Ampere and Ada have no wgmma: operands go through registers, and 64 x 64 spills 1,584 bytes in
#   tf32x3, in the inner loops too.
TILES = {
    ("float32", "ieee"): Tiles(edge=32, rows=64, warps=8, stages=2),
    ("float32", "tf32x3"): Tiles(edge=64, rows=64, warps=8, stages=2),
    ("float32", "tf32"): Tiles(edge=64, rows=64, warps=8, stages=2),
    ("float64", "ieee"): Tiles(edge=16, rows=32, warps=8, stages=1),
}
BEFORE_HOPPER = {("float32", "tf32x3"): Tiles(edge=32, rows=64, warps=4, stages=2)}
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
    tile: tuple[int, ...]
    table_tile: int  # over rows of the embedding
    block_outputs: int  # a whole row of outputs, of classes
    block_classes: int
    weight: tuple[int, ...]  # offset of W_l [O, pitch of I] in a cell's row
    bias: tuple[int, ...]
    size: int  # of a cell's row; the embedding [P, pitch of E], if any, comes first
    features: tuple[int, ...]  # offset of activations [rows, pitch] of width l in the scratch
    deltas: tuple[int, ...]  # same for the gradient of the loss by width l before activation
    scratch: int  # of a program
    rows: int
    warps: int
    stages: int


def power_of_two(n: int) -> int:
    return 1 << (max(n, MIN_TILE) - 1).bit_length()


def round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def pitch_of(width: int) -> int:
    """16 bytes of float32, so that four neighbours load at once; a scalar input stays scalar."""
    return width if width < 4 else round_up(width, 4)


def make_layout(spec: Spec, tiles: Tiles | None = None) -> Layout:
    tiles = tiles or choose_tiles(spec)
    pitch = tuple(pitch_of(n) for n in spec.sizes)
    longest = max(spec.batch_size + spec.num_val * spec.fused_validation, spec.num_val)

    offset = round_up(spec.embedding[0] * pitch[0], 4) if spec.embedding else 0
    weight, bias = [], []
    for layer in range(spec.num_layers):
        outputs = spec.sizes[layer + 1]
        weight.append(offset)
        offset = round_up(offset + outputs * pitch[layer], 4)
        bias.append(offset)
        offset = round_up(offset + outputs, 4)

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
        tile=tuple(min(tiles.edge, power_of_two(n)) for n in pitch),
        table_tile=min(tiles.edge, power_of_two(spec.embedding[0])) if spec.embedding else 0,
        block_outputs=power_of_two(spec.sizes[-1]),
        block_classes=power_of_two(spec.num_classes),
        weight=tuple(weight),
        bias=tuple(bias),
        size=offset,
        features=tuple(features),
        deltas=tuple(deltas),
        scratch=end,
        rows=min(tiles.rows, power_of_two(longest)),
        warps=tiles.warps,
        stages=tiles.stages,
    )


def views(packed: Tensor, layout: Layout) -> list[Tensor]:
    """The canonical tensors of all cells as views into `packed` [M, size], in contract order."""
    spec, cells = layout.spec, packed.shape[0]
    found = []

    def view(offset: int, rows: int, width: int, pitch: int) -> Tensor:
        block = packed[:, offset : offset + rows * pitch]
        return block.view(cells, rows, pitch)[:, :, :width]

    if spec.embedding:
        found.append(view(0, *spec.embedding, layout.pitch[0]))
    for layer in range(spec.num_layers):
        inputs, outputs = spec.sizes[layer : layer + 2]
        found.append(view(layout.weight[layer], outputs, inputs, layout.pitch[layer]))
        found.append(view(layout.bias[layer], 1, outputs, outputs)[:, 0])
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
