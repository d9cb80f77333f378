"""The performance-critical operations: public functions that check their arguments and choose a backend.

Rows belong to segments (edges to their receiver, atoms to their graph). Every segment function takes the segments
either as a graph, ``segment_sum(values, graph)`` (edges by receiver), or as any index, sorted or not,
``segment_sum(values, index, num_segments)``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from geoeq.errors import TensorError
from geoeq.kernels.backend import BackendStatus, choose, register, report, use
from geoeq.kernels.backends.cuequivariance import CuEquivariance
from geoeq.kernels.backends.fused import FusedBackend
from geoeq.kernels.backends.reference import Backend
from geoeq.kernels.backends.torch_scatter import TorchScatter
from geoeq.kernels.llvm.backend import LLVM
from geoeq.kernels.paths import Mode, Path, Paths, coupling
from geoeq.kernels.segments import Edges, Receivers, Segments, edge_tensors, segments_of
from geoeq.kernels.shape_checks import check_features, check_maps, check_product
from geoeq.kernels.triton.backend import Triton

__all__ = [
    "Backend",
    "BackendStatus",
    "Edges",
    "Mode",
    "Path",
    "Paths",
    "Receivers",
    "Segments",
    "attended_product",
    "coupling",
    "gather",
    "radial_tensor_product_conv",
    "report",
    "segment_count",
    "segment_max",
    "segment_mean",
    "segment_softmax",
    "segment_sum",
    "tensor_product",
    "tensor_product_conv",
    "tensor_product_linear",
    "use",
    "weighted_sum",
]

# In order of preference.
register(FusedBackend("llvm", LLVM(), smallest_sum=100_000, smallest_softmax=5_000))
register(FusedBackend("triton", Triton()))
register(Backend())
register(TorchScatter())
register(CuEquivariance())


def gather(x: Tensor, index: Tensor) -> Tensor:
    """Return the rows of ``x`` at ``index``; the gradient is a sum instead of a slow, accumulating index_put.

    Shapes:
        x: [N, ...]; index: [E] int64. Returns [E, ...].
    """
    return x.index_select(0, index)


def segment_sum(values: Tensor, index: Tensor | Receivers, num_segments: int | None = None) -> Tensor:
    """Sum the rows of each segment; an empty segment gives 0.

    Shapes:
        values: [E, ...]; index: [E] int64, or a graph. Returns [num_segments, ...].

    Raises:
        TensorError: the index does not fit the values, or an index comes without num_segments.
    """
    return choose(values).segment_sum(values, segments_of(values, index, num_segments))


def segment_count(index: Tensor, num_segments: int, dtype: torch.dtype) -> Tensor:
    """Count the rows of each segment.

    Shapes:
        index: [E] int64. Returns [num_segments].
    """
    return torch.zeros(num_segments, dtype=dtype, device=index.device).index_add(
        0, index, torch.ones_like(index, dtype=dtype)
    )


def segment_mean(values: Tensor, index: Tensor | Receivers, num_segments: int | None = None) -> Tensor:
    """Average the rows of each segment; an empty segment gives 0. Shapes and errors are those of ``segment_sum``."""
    segments = segments_of(values, index, num_segments)
    count = segment_count(segments.index, segments.num_segments, values.dtype).clamp(min=1)
    total = choose(values).segment_sum(values, segments)
    return total / count.view(-1, *[1] * (values.dim() - 1))


def segment_max(values: Tensor, index: Tensor | Receivers, num_segments: int | None = None) -> Tensor:
    """Return the elementwise maximum of the rows of each segment; an empty segment gives 0.

    Shapes and errors are those of ``segment_sum``.
    """
    return choose(values).segment_max(values, segments_of(values, index, num_segments))


def segment_softmax(values: Tensor, index: Tensor | Receivers, num_segments: int | None = None) -> Tensor:
    """Return the elementwise softmax over the rows of each segment, without overflow.

    Shapes:
        values: [E, ...]; index: [E] int64, or a graph. Returns [E, ...]; the rows of each segment sum to one.
    """
    return choose(values).segment_softmax(values, segments_of(values, index, num_segments))


def weighted_sum(
    values: Tensor,
    weights: Tensor,
    index: Tensor | Receivers,
    num_segments: int | None = None,
    blocks: Sequence[tuple[int, int]] | None = None,
) -> Tensor:
    """Sum the rows of each segment, multiplied by their weights: ``Σ_e w_e,h(d) v_e,d`` for column d of head h(d).

    With the softmax of scores as weights this is attention; with a function of the distance, a smooth sum. If the index
    is a graph, whose edges are sorted, the weighted rows are never stored.

    Args:
        values: rows to be summed.
        weights: weights of each row, one for each of H heads.
        index, num_segments: segments, as in ``segment_sum``.
        blocks: (rows, channels) of the blocks that lie side by side in a row of the values, e.g. (2 l + 1, channels).
            In each block the first channels / H channels belong to the first head, and so on. The default is a single
            block, (1, D).

    Shapes:
        values: [E, D]. weights: [E, H]. Returns [num_segments, D].

    Raises:
        TensorError: shapes do not fit, or the channels of a block are not a multiple of H.
    """
    parts = ((1, values.shape[-1]),) if blocks is None else tuple((rows, channels) for rows, channels in blocks)
    heads = weights.shape[-1]
    if values.dim() != 2 or weights.shape != (values.shape[0], heads):
        raise TensorError(
            f"values have shape {list(values.shape)} and weights {list(weights.shape)}; they must be [E, D] and [E, H]."
        )
    if sum(rows * channels for rows, channels in parts) != values.shape[1] or any(c % heads for _, c in parts):
        raise TensorError(f"{values.shape[1]} columns do not consist of the blocks {list(parts)} with {heads} heads.")
    return choose(values).weighted_sum(values, weights, segments_of(values, index, num_segments), parts)


def tensor_product(x: Tensor, harmonics: Tensor, weights: Tensor | None, paths: Paths) -> tuple[Tensor, ...]:
    """Return the tensor product of each row with its harmonics: ``Σ_ij C^p_ijk x_iu Y_j w_pu`` for every path p.

    Features are channels last: each block of a row is ``[2 l + 1, channels]``.

    Args:
        x: features of each row (of each edge, if messages depend on both ends).
        harmonics: spherical harmonics of each row, all degrees from 0 in e3nn's order (those of a graph).
        weights: weights of each row; None for "uvu" without weights.
        paths: couplings of the tensor product.

    Shapes:
        x: [E, paths.x_dim]. harmonics: [E, paths.harmonics_dim or more]. weights: [E, paths.weight_numel].
        Returns the blocks of the result, each [E, 2 l + 1, channels] as in ``paths.out_blocks``.

    Raises:
        TensorError: a shape does not fit the paths.
    """
    check_product(x, harmonics, weights, x.shape[0], x.shape[0], paths)
    return choose(x).tensor_product(x, harmonics, weights, paths)


def tensor_product_linear(
    x: Tensor, harmonics: Tensor, weights: Tensor | None, paths: Paths, maps: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Return the tensor product of each row after a linear map of each block's channels.

    The product itself is never stored as a whole.

    Args:
        x, harmonics, weights, paths: as in ``tensor_product``.
        maps: matrix for each block of the product.

    Shapes:
        maps: [channels, V] each. Returns [E, 2 l + 1, V] for each block.

    Raises:
        TensorError: a shape does not fit the paths.
    """
    check_product(x, harmonics, weights, x.shape[0], x.shape[0], paths)
    check_maps(maps, paths)
    return choose(x).tensor_product_linear(x, harmonics, weights, paths, maps)


def attended_product(
    x: Tensor, harmonics: Tensor, weights: Tensor, graph: Receivers, paths: Paths, maps: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Return attention over tensor products: ``Σ_e a_e,h W_h (x_e ⊗ Y_e)`` at each receiver, for every head h.

    Fused backends apply the linear maps W last, to nodes, of which there are fewer, and store no values per edge.

    Args:
        x: features of each edge.
        harmonics: spherical harmonics of each edge.
        weights: attention weights a of each edge, one for each of H heads.
        graph: edges, sorted by receiver.
        paths: couplings without weights per path, from ``Paths.with_heads(H)``.
        maps: matrix for each block of the product. Its first V / H columns belong to the first head, and so on.

    Shapes:
        x: [E, paths.x_dim]. harmonics: [E, paths.harmonics_dim or more]. weights: [E, H]. maps: [channels, V] each.
        Returns [N, 2 l + 1, V] for each block.

    Raises:
        TensorError: a shape does not fit the paths, or V is not a multiple of H.
    """
    check_product(x, harmonics, weights, graph.receiver.shape[0], graph.receiver.shape[0], paths, with_heads=True)
    check_maps(maps, paths)
    if any(matrix.shape[1] % paths.heads for matrix in maps):
        raise TensorError(f"maps have shapes {[list(m.shape) for m in maps]}: {paths.heads} heads do not divide them.")
    return choose(x).attended_product(x, harmonics, weights, segments_of(x, graph, None), paths, maps)


def tensor_product_conv(x: Tensor, harmonics: Tensor, weights: Tensor, graph: Edges, paths: Paths) -> Tensor:
    """Sum messages at their receivers; a message is the tensor product of the sender's features with the harmonics.

    Args:
        x: features of the nodes, channels last.
        harmonics, weights, paths: as in ``tensor_product``.
        graph: edges, sorted by receiver.

    Shapes:
        x: [N, paths.x_dim]. harmonics: [E, paths.harmonics_dim or more]. weights: [E, paths.weight_numel].
        Returns [N, paths.out_dim], channels last.

    Raises:
        TensorError: a shape does not fit the paths.
    """
    check_product(x, harmonics, weights, graph.sender.shape[0], graph.num_nodes, paths)
    return choose(x).tensor_product_conv(x, harmonics, weights, edge_tensors(graph, x), paths)


def radial_tensor_product_conv(
    x: Tensor, harmonics: Tensor, hidden: Tensor, matrix: Tensor, graph: Edges, paths: Paths
) -> Tensor:
    """Return ``tensor_product_conv`` with the weights ``hidden @ matrix``, which never exist for all edges at once.

    Weights are nearly all of the memory traffic of a convolution. Fused backends compute the weights of some edges, use
    them while they are in a cache, and recompute them for derivatives. For a bias, append a column of ones to hidden
    and a row to the matrix.

    Args:
        x, harmonics, graph, paths: as in ``tensor_product_conv``.
        hidden: last hidden layer of the network of the distance, for each edge.
        matrix: last linear map of that network.

    Shapes:
        hidden: [E, H]. matrix: [H, paths.weight_numel]. Others as in ``tensor_product_conv``.

    Raises:
        TensorError: a shape does not fit the paths.
    """
    edges = graph.sender.shape[0]
    check_features(x, harmonics, edges, graph.num_nodes, paths)
    if hidden.dim() != 2 or hidden.shape[0] != edges or matrix.shape != (hidden.shape[1], paths.weight_numel):
        raise TensorError(
            f"hidden has shape {list(hidden.shape)} and matrix {list(matrix.shape)}; this tensor product needs "
            f"[{edges}, H] and [H, {paths.weight_numel}]."
        )
    return choose(x).radial_tensor_product_conv(x, harmonics, hidden, matrix, edge_tensors(graph, x), paths)
