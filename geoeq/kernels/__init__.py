"""The hot operations: public functions, and the table of the backends that can do them.

Rows belong to segments (edges to their receiver, atoms to their graph). Every function takes the
segments either as a graph, ``segment_sum(values, graph)`` (edges by receiver), or as any index,
``segment_sum(values, index, num_segments)``, sorted or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from geoeq.errors import TensorError
from geoeq.kernels.backend import (
    Backend,
    BackendStatus,
    EdgeTensors,
    Segments,
    choose,
    register,
    report,
    use,
)
from geoeq.kernels.backends.cuequivariance import CuEquivariance
from geoeq.kernels.backends.fused import LLVMBackend, TritonBackend
from geoeq.kernels.backends.plain_products import ReferenceBackend
from geoeq.kernels.backends.torch_scatter import TorchScatter
from geoeq.kernels.paths import Mode, Path, Paths, coupling

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

register("llvm", LLVMBackend)
register("triton", TritonBackend)
register("reference", ReferenceBackend)
register("torch_scatter", TorchScatter)
register("cuequivariance", CuEquivariance)


class Receivers(Protocol):
    """A graph, as far as sums over its edges need it."""

    @property
    def receiver(self) -> Tensor: ...
    @property
    def row_pointers(self) -> Tensor: ...
    @property
    def num_nodes(self) -> int: ...


class Edges(Receivers, Protocol):
    """A graph, as far as messages along its edges need it."""

    @property
    def sender(self) -> Tensor: ...
    @property
    def by_sender(self) -> tuple[Tensor, Tensor]: ...


def _segments(values: Tensor, index: Tensor | Receivers, num_segments: int | None) -> Segments:
    if isinstance(index, Tensor):
        if num_segments is None:
            raise TensorError("segment functions need num_segments beside an index tensor; a graph needs neither.")
        segments = Segments(index, num_segments)
    else:
        segments = Segments(index.receiver, index.num_nodes, index.row_pointers)
    if segments.index.dim() != 1 or values.dim() == 0 or values.shape[0] != segments.index.shape[0]:
        raise TensorError(
            f"values has shape {list(values.shape)} and the index {list(segments.index.shape)}: "
            "the index is one-dimensional, with one entry for each row of values."
        )
    return segments


def gather(x: Tensor, index: Tensor) -> Tensor:
    """Rows of ``x`` at ``index``; its derivative is a sum, not the slow accumulating index_put.

    Shapes:
        x: [N, ...]; index: [E] int64. Returns [E, ...].
    """
    return x.index_select(0, index)


def segment_sum(values: Tensor, index: Tensor | Receivers, num_segments: int | None = None) -> Tensor:
    """Sum of the rows of each segment; 0 for an empty one.

    Shapes:
        values: [E, ...]; index: [E] int64, or a graph. Returns [num_segments, ...].

    Raises:
        TensorError: the index does not fit the values, or num_segments is missing beside an index.
    """
    return choose(values).segment_sum(values, _segments(values, index, num_segments))


def segment_count(index: Tensor, num_segments: int, dtype: torch.dtype) -> Tensor:
    """How many rows each segment has.

    Shapes:
        index: [E] int64. Returns [num_segments].
    """
    return torch.zeros(num_segments, dtype=dtype, device=index.device).index_add(
        0, index, torch.ones_like(index, dtype=dtype)
    )


def segment_mean(values: Tensor, index: Tensor | Receivers, num_segments: int | None = None) -> Tensor:
    """Mean of the rows of each segment; 0 for an empty one. Shapes and errors as for ``segment_sum``."""
    segments = _segments(values, index, num_segments)
    count = segment_count(segments.index, segments.num_segments, values.dtype).clamp(min=1)
    total = choose(values).segment_sum(values, segments)
    return total / count.view(-1, *[1] * (values.dim() - 1))


def segment_max(values: Tensor, index: Tensor | Receivers, num_segments: int | None = None) -> Tensor:
    """Largest row of each segment, entry by entry; 0 for an empty one. Shapes and errors as for ``segment_sum``."""
    return choose(values).segment_max(values, _segments(values, index, num_segments))


def segment_softmax(values: Tensor, index: Tensor | Receivers, num_segments: int | None = None) -> Tensor:
    """Softmax over the rows of each segment, entry by entry, without overflow.

    Shapes:
        values: [E, ...]; index: [E] int64, or a graph. Returns [E, ...]: the rows of a segment sum to one.
    """
    return choose(values).segment_softmax(values, _segments(values, index, num_segments))


def weighted_sum(
    values: Tensor,
    weights: Tensor,
    index: Tensor | Receivers,
    num_segments: int | None = None,
    blocks: Sequence[tuple[int, int]] | None = None,
) -> Tensor:
    """Sum of the rows of each segment, each times its weights: ``Σ_e w_e,h(d) v_e,d`` for column d of head h(d).

    With the softmax of scores as weights it is attention, with a function of the distance a smooth sum. The products
    of all rows never exist where a graph, whose edges are sorted, is given.

    Args:
        values: the rows.
        weights: one for each of H heads.
        index, num_segments: as for ``segment_sum``.
        blocks: (rows, channels) of the parts side by side in a row of the values, as ``(2 l + 1, channels)``. Of each
            block the first channels / H channels belong to the first head, and so on. By default one block, (1, D).

    Shapes:
        values: [E, D]. weights: [E, H]. Returns [num_segments, D].

    Raises:
        TensorError: the shapes do not fit, or the channels of a block are no multiple of H.
    """
    parts = ((1, values.shape[-1]),) if blocks is None else tuple((rows, channels) for rows, channels in blocks)
    heads = weights.shape[-1]
    if values.dim() != 2 or weights.shape != (values.shape[0], heads):
        raise TensorError(
            f"values have shape {list(values.shape)} and weights {list(weights.shape)}; needed are [E, D] and [E, H]."
        )
    if sum(rows * channels for rows, channels in parts) != values.shape[1] or any(c % heads for _, c in parts):
        raise TensorError(f"{values.shape[1]} columns are not the blocks {list(parts)}, each of {heads} heads.")
    return choose(values).weighted_sum(values, weights, _segments(values, index, num_segments), parts)


def tensor_product(x: Tensor, harmonics: Tensor, weights: Tensor | None, paths: Paths) -> tuple[Tensor, ...]:
    """Tensor product of each row with its harmonics: ``Σ_ij C^p_ijk x_iu Y_j w_pu`` for every path p.

    Features are channels last: each block of a row is ``[2 l + 1, channels]``.

    Args:
        x: features of each row (of each edge, where messages are made of both of its ends).
        harmonics: of each row, all degrees from 0 on in e3nn's order (as a graph's).
        weights: of each row; None for "uvu" without weights.
        paths: what couples to what.

    Shapes:
        x: [E, paths.x_dim]. harmonics: [E, paths.harmonics_dim or more]. weights: [E, paths.weight_numel].
        Returns the blocks of the result, each [E, 2 l + 1, channels] as in ``paths.out_blocks``.

    Raises:
        TensorError: a shape is another.
    """
    _check_product(x, harmonics, weights, x.shape[0], x.shape[0], paths)
    return choose(x).tensor_product(x, harmonics, weights, paths)


def tensor_product_linear(
    x: Tensor, harmonics: Tensor, weights: Tensor | None, paths: Paths, maps: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Tensor product of each row, then a linear map of the channels of each block: the product is never whole.

    Args:
        x, harmonics, weights, paths: as for ``tensor_product``.
        maps: a matrix for each block of the product.

    Shapes:
        maps: [channels, V] each. Returns [E, 2 l + 1, V] of each block.

    Raises:
        TensorError: a shape is another.
    """
    _check_product(x, harmonics, weights, x.shape[0], x.shape[0], paths)
    _check_maps(maps, paths)
    return choose(x).tensor_product_linear(x, harmonics, weights, paths, maps)


def attended_product(
    x: Tensor, harmonics: Tensor, weights: Tensor, graph: Receivers, paths: Paths, maps: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Attention over tensor products: ``Σ_e a_e,h W_h (x_e ⊗ Y_e)`` at each receiver, for every head h.

    The linear maps W come last where a backend can: there are fewer nodes than edges, and no value of an edge exists.

    Args:
        x: features of each edge.
        harmonics: of each edge.
        weights: a, of each edge for each of H heads.
        graph: edges, sorted by receiver.
        paths: what couples to what, without weights of its own; of ``Paths.with_heads(H)``.
        maps: a matrix for each block of the product. Of its columns the first V / H belong to the first head, and so
            on.

    Shapes:
        x: [E, paths.x_dim]. harmonics: [E, paths.harmonics_dim or more]. weights: [E, H]. maps: [channels, V] each.
        Returns [N, 2 l + 1, V] of each block.

    Raises:
        TensorError: a shape is another, or the heads do not divide V.
    """
    _check_product(x, harmonics, weights, graph.receiver.shape[0], graph.receiver.shape[0], paths, with_heads=True)
    _check_maps(maps, paths)
    if any(matrix.shape[1] % paths.heads for matrix in maps):
        raise TensorError(f"maps have shapes {[list(m.shape) for m in maps]}: {paths.heads} heads do not divide them.")
    return choose(x).attended_product(x, harmonics, weights, _segments(x, graph, None), paths, maps)


def tensor_product_conv(x: Tensor, harmonics: Tensor, weights: Tensor, graph: Edges, paths: Paths) -> Tensor:
    """Messages by a tensor product, summed at their receivers: the features of the sender times the harmonics.

    Args:
        x: features of the nodes, channels last.
        harmonics, weights, paths: as for ``tensor_product``.
        graph: edges, sorted by receiver.

    Shapes:
        x: [N, paths.x_dim]. harmonics: [E, paths.harmonics_dim or more]. weights: [E, paths.weight_numel].
        Returns [N, paths.out_dim], channels last.

    Raises:
        TensorError: a shape is another.
    """
    _check_product(x, harmonics, weights, graph.sender.shape[0], graph.num_nodes, paths)
    return choose(x).tensor_product_conv(x, harmonics, weights, _edge_tensors(graph, x), paths)


def radial_tensor_product_conv(
    x: Tensor, harmonics: Tensor, hidden: Tensor, matrix: Tensor, graph: Edges, paths: Paths
) -> Tensor:
    """``tensor_product_conv`` with the weights ``hidden @ matrix``, which never exist for all edges.

    Weights are nearly all of the bytes of a convolution; those of some edges are made, used while they are in a cache,
    and made again for derivatives. For an offset, give hidden a column of ones and the matrix a row.

    Args:
        x, harmonics, graph, paths: as for ``tensor_product_conv``.
        hidden: last hidden layer of the network of the distance, of each edge.
        matrix: its last linear map.

    Shapes:
        hidden: [E, H]. matrix: [H, paths.weight_numel]. The others as for ``tensor_product_conv``.

    Raises:
        TensorError: a shape is another.
    """
    edges = graph.sender.shape[0]
    _check_features(x, harmonics, edges, graph.num_nodes, paths)
    if hidden.dim() != 2 or hidden.shape[0] != edges or matrix.shape != (hidden.shape[1], paths.weight_numel):
        raise TensorError(
            f"hidden has shape {list(hidden.shape)} and matrix {list(matrix.shape)}; this tensor product needs "
            f"[{edges}, H] and [H, {paths.weight_numel}]."
        )
    return choose(x).radial_tensor_product_conv(x, harmonics, hidden, matrix, _edge_tensors(graph, x), paths)


def _edge_tensors(graph: Edges, x: Tensor) -> EdgeTensors:
    """With the edges by sender where the derivative by x will need them, so that all layers share them."""
    wanted = torch.is_grad_enabled() and x.requires_grad and not torch.compiler.is_compiling()
    order = graph.by_sender if wanted else (graph.sender.new_empty(0), graph.sender.new_empty(0))
    return EdgeTensors(graph.sender, graph.receiver, graph.row_pointers, *order)


def _check_product(
    x: Tensor,
    harmonics: Tensor,
    weights: Tensor | None,
    num_edges: int,
    num_rows: int,
    paths: Paths,
    with_heads: bool = False,
) -> None:
    _check_features(x, harmonics, num_edges, num_rows, paths, with_heads)
    if weights is not None and weights.shape != (num_edges, paths.weight_numel):
        raise TensorError(
            f"weights have shape {list(weights.shape)}; this tensor product needs [{num_edges}, {paths.weight_numel}]."
        )
    if weights is None and any(path.mode == "uvw" for path in paths.paths):
        raise TensorError("A tensor product of mode 'uvw' needs weights.")


def _check_maps(maps: Sequence[Tensor], paths: Paths) -> None:
    if [matrix.shape[0] for matrix in maps] != [channels for _, channels in paths.out_blocks]:
        found, needed = [list(matrix.shape) for matrix in maps], [channels for _, channels in paths.out_blocks]
        raise TensorError(f"maps have shapes {found}; the blocks of this tensor product have {needed} channels.")


def _check_features(
    x: Tensor, harmonics: Tensor, num_edges: int, num_rows: int, paths: Paths, with_heads: bool = False
) -> None:
    if bool(paths.heads) != with_heads:
        raise TensorError("attended_product takes paths with heads (Paths.with_heads), other products those without.")
    if x.dim() != 2 or x.shape != (num_rows, paths.x_dim):
        raise TensorError(f"x has shape {list(x.shape)}; this tensor product needs [{num_rows}, {paths.x_dim}].")
    if harmonics.dim() != 2 or harmonics.shape[0] != num_edges or harmonics.shape[1] < paths.harmonics_dim:
        raise TensorError(
            f"harmonics have shape {list(harmonics.shape)}; this tensor product needs {num_edges} rows of at least "
            f"{paths.harmonics_dim} columns (lmax {max(path.degrees[1] for path in paths.paths)})."
        )
