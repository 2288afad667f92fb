"""Products of compiled code on a CPU in float32 by oneDNN, which torch carries beside MKL.

Torch multiplies float32 matrices with MKL, which on AMD's processors has no code for AVX-512:
one core of a Zen 5 does 105 GFLOP/s where oneDNN does 240. Inductor takes oneDNN for constant
weights alone; here a pass over its graph replaces every product.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files
from torch.fx import Graph, Node

_OPERATIONS = torch.library.Library("grokfast", "DEF")
_OPERATIONS.define("product(Tensor a, Tensor b) -> Tensor")


@torch.library.impl(_OPERATIONS, "product", "CPU")
def _product(a: Tensor, b: Tensor) -> Tensor:
    """``[R, I]`` times ``[I, O]``, in any strides."""
    return torch.ops.mkldnn._linear_pointwise(a, b.T, None, "none", [], "")


@torch.library.register_fake("grokfast::product", lib=_OPERATIONS)
def _shape(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(a.shape[0], b.shape[1])


@cache
def is_there() -> bool:
    """Whether this torch has oneDNN's products in the form used here."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class ReplaceProducts(CustomGraphPass):
    """Of every product of float32 matrices on a CPU; of few stacked ones each by itself."""

    def __call__(self, graph: Graph) -> None:
        _lower()
        aten = torch.ops.aten
        for target in (aten.mm.default, aten.bmm.default, aten.addmm.default, aten.baddbmm.default):
            for node in graph.find_nodes(op="call_function", target=target):
                *added, a, b = node.args
                if not _takes(a) or len(node.kwargs):
                    continue
                with graph.inserting_before(node):
                    new = _replaced(graph, a, b, target in (aten.bmm.default, aten.baddbmm.default))
                    if added:
                        new = _call(graph, aten.add.Tensor, new, added[0])
                node.replace_all_uses_with(new)
                new.meta = dict(node.meta)
                graph.erase_node(node)

    def uuid(self) -> bytes:
        return get_hash_for_files((__file__,))


def _takes(a: Node) -> bool:
    value = a.meta["val"]
    return value.dtype == torch.float32 and value.device.type == "cpu"


def _replaced(graph: Graph, a: Node, b: Node, stacked: bool) -> Node:
    product, aten = torch.ops.grokfast.product.default, torch.ops.aten
    if not stacked:
        return _call(graph, product, a, b)
    parts = []
    for m in range(a.meta["val"].shape[0]):
        one = [_call(graph, aten.select.int, x, 0, m) for x in (a, b)]
        parts.append(_call(graph, aten.unsqueeze.default, _call(graph, product, *one), 0))
    return parts[0] if len(parts) == 1 else _call(graph, aten.cat.default, parts, 0)


def _call(graph: Graph, target, *args) -> Node:
    """A call with its example value, as later passes and lowerings read it."""
    node = graph.call_function(target, args)
    values = torch.fx.node.map_arg(args, lambda n: n.meta["val"])
    node.meta["val"] = target(*values)
    return node


@cache
def _lower() -> None:
    """Compiled code calls oneDNN itself, without Python, on strided matrices as they are."""
    from torch._inductor import ir, mkldnn_ir
    from torch._inductor.lowering import lowerings, register_lowering

    permute = lowerings[torch.ops.aten.permute.default]

    @register_lowering(torch.ops.grokfast.product.default, type_promotion_kind=None)
    def lower(a, b):
        x = ir.ExternKernel.realize_input(a)
        w = ir.ExternKernel.realize_input(permute(b, (1, 0)))
        size = [a.get_size()[0], b.get_size()[1]]
        layout = ir.FixedLayout(device=a.get_device(), dtype=a.get_dtype(), size=size)
        node = mkldnn_ir.LinearUnary(
            layout=layout, inputs=[x, w], constant_args=[None, "none", [-1], ""]
        )
        return ir.TensorBox.create(mkldnn_ir._create_output_node(node))
