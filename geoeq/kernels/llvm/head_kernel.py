"""Generate the edge kernel of paths with attention heads, whose weights are the same for all channels."""

from __future__ import annotations

from geoeq.kernels.coupled_paths import CoupledPath, coupled_paths
from geoeq.kernels.llvm.emit import Code, Scalar
from geoeq.kernels.llvm.kernel import Kernel, Row, function
from geoeq.kernels.llvm.product_kernels import OutRow, WeightRow, add_by_harmonics, contract, products
from geoeq.kernels.paths import Paths

__all__ = ["head_kernel"]


def head_kernel(paths: Paths, by_harmonics: bool, by_weights: bool, scalar: Scalar, lanes: int) -> Kernel:
    """Return the kernel of each edge's gradients: by harmonics ``Σ C_ijk x_i Σ_h w_h g_hk``, by weights
    ``Σ_k g_hk Σ_i M_ik x_i``.

    Pointers are those of ``edge_kernel``, with weights and their gradients [E, H]. Rows are edges.
    """
    code, coupled = Code(scalar, lanes), coupled_paths(paths)
    matrices = code.scratch(sum(len(member.entries) for member in coupled))
    harmonics_sums = code.scratch(paths.harmonics_dim * lanes)
    head_sums = code.scratch(paths.heads * lanes)
    with code.loop("%first", "%last") as edge:
        if by_harmonics:
            code.zero(harmonics_sums, paths.harmonics_dim * lanes)
        if by_weights:
            code.zero(head_sums, paths.heads * lanes)
            contract(code, coupled, Row(code, "%harmonics", edge, paths.harmonics_dim).base, matrices)
        x = Row(code, "%x", code.load_index("%sender", edge), paths.x_dim)
        g = OutRow(code, "%g", code.load_index("%receiver", edge), paths)
        weights = WeightRow(code, edge, paths, weighted=True)
        for member in coupled:
            for channel in code.vectors(member.channels):
                channels = x.at(channel)
                inputs = [code.load(channels, member.x_start + i * member.channels) for i in member.rows]
                if by_harmonics:
                    rows = sorted({entry.k for entry in member.entries})
                    outputs = {k: weights.summed(g, member, channel, k) for k in rows}
                    add_by_harmonics(code, member, inputs, outputs, None, {}, harmonics_sums)
                if by_weights:
                    messages = products(code, member, inputs, matrices)
                    _add_by_heads(code, messages, channel, member, g, head_sums)
        for wanted, name, sums, width in (
            (by_harmonics, "%by_harmonics", harmonics_sums, paths.harmonics_dim),
            (by_weights, "%by_weights", head_sums, paths.heads),
        ):
            result = Row(code, name, edge, width).base
            for j in range(width if wanted else 0):
                code.store_scalar(code.sum(code.load(sums, j * lanes)), result, j)
    pointers = ["x", "harmonics", "weights", "g", "sender", "receiver", "by_harmonics", "by_weights"]
    return function("edge", code, pointers)


def _add_by_heads(
    code: Code, messages: dict[int, str], channel: str, member: CoupledPath, g: OutRow, sums: str
) -> None:
    """Add ``Σ_k g_hk Σ_i M_ik x_i`` of each head h to ``sums``."""
    for head in range(g.copies):
        with code.whole():  # sums have all lanes; those without a channel hold zeros
            total = code.load(sums, head * code.lanes)
        for k, message in messages.items():
            total = code.fused(code.load(*g.at(member, channel, k, head)), message, total)
        with code.whole():
            code.store(total, sums, head * code.lanes)
