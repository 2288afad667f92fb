"""Bytes, flops and expected time of one step of all models on an H200, from counts of tiles.

A prediction, made before any measurement, of `kernels/` as written: one program a multiprocessor.
Per tile: the longest of a latency, bytes over the L2 rate of one multiprocessor, and flops over a
share of peak. Per step of all models: the slower of that and of streaming the state from HBM.
"""

from collections.abc import Iterator
from itertools import pairwise

SMS = 132
L2 = 9.7e12 / SMS  # B/s a multiprocessor while the footprint fits L2
HBM = 4.3e12  # B/s, a copy
RATE = {  # flop/s a multiprocessor: half of the FFMA peak, 40% of the tensor cores'
    "ieee": 67e12 / SMS * 0.5,
    "tf32x3": 165e12 / SMS * 0.4,
    "tf32": 495e12 / SMS * 0.4,
}
SERIAL = 0.45e-6  # s: a dependent L2 round trip and barriers, of a tile that is not prefetched
PREFETCHED = 0.20e-6
SETTLING = 3e-6  # s a step: loss, predictions, counters


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def phases(
    sizes: list[int], forward: int, backward: int, rows: int, edge: int, dense: bool
) -> Iterator[tuple[int, float, float, float]]:
    """Tiles, flops, bytes and latency a tile, of every phase of a step."""

    def tile(n: int) -> int:
        return min(edge, 1 << (max(n, 16) - 1).bit_length())

    for layer, (i, o) in enumerate(pairwise(sizes)):
        for kind, samples in (("forward", forward), ("dx", backward), ("dw", backward)):
            if kind == "dx" and layer == 0 and dense:
                continue
            blocks = ceil_div(samples, rows)
            tiles = ceil_div(i, tile(i)) * ceil_div(o, tile(o))
            weights = min(tile(i), i) * min(tile(o), o) * 4
            activations = 4 * min(rows, samples) * min(tile(i), i)  # half of them from L1
            flops = 2 * rows * tile(i) * tile(o)
            if kind == "dw":  # reads and writes parameters and both moments
                latency = SERIAL if blocks == 1 else PREFETCHED + SERIAL / blocks
                yield tiles * blocks, flops, weights * 6 / blocks + activations, latency
            else:
                yield (
                    tiles * blocks,
                    flops,
                    weights + activations,
                    PREFETCHED if tiles > 1 else SERIAL,
                )


def row(
    name: str, sizes: list[int], forward: int, backward: int, models: int, edge: int, precision: str
) -> str:
    parts = list(phases(sizes, forward, backward, 64, edge, dense=sizes[0] > 1))
    seconds = SETTLING + sum(
        n * max(latency, size / L2, flops / RATE[precision]) for n, flops, size, latency in parts
    )
    parameters = sum(i * o + o for i, o in pairwise(sizes))
    streamed = models * parameters * 28 / HBM  # p is read once more after eviction
    together = seconds * models / SMS
    cells = (
        name,
        precision,
        f"{edge} x 64",
        f"{sum(n * f for n, f, _, _ in parts) / 1e6:.1f}",
        f"{sum(n * b for n, _, b, _ in parts) / 1e6:.2f}",
        f"{seconds * 1e6:.0f}",
        f"{together * 1e6:.0f}",
        f"{streamed * 1e6:.0f}",
        f"{max(together, streamed) * 1e6:.0f}",
    )
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    print(
        "| workload | precision | tile | MFLOP/model-step, padded | L2 MB/model-step | "
        "us/model-step on one SM | us/step of all | HBM, us | expected us/step |\n"
        + "|---" * 9
        + "|"
    )
    workloads = (
        ("toy CE x441", [1, 200, 200, 19], 55, 45, 441),
        ("toy MSE x441", [1, 200, 200, 30], 55, 45, 441),
        ("MNIST x210", [784, 200, 200, 10], 200, 200, 210),
    )
    for workload in workloads:
        for precision, edge in (("ieee", 32), ("tf32x3", 64), ("tf32", 64)):
            print(row(*workload, edge, precision))


if __name__ == "__main__":
    main()
