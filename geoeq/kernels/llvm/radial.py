"""Convolutions on the CPU whose weights are computed for some edges at a time, and used while they are in a cache.

Weights are ``w = h R`` with h the hidden layer of an edge and R the matrix. Second derivatives also need
``w' = h' R + h R'``, the change of the weights with the cotangents h' and R'.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from geoeq.kernels.llvm.kernel import Kernel
from geoeq.kernels.llvm.launch import check_senders, kernel_of, run
from geoeq.kernels.llvm.memory import empty
from geoeq.kernels.llvm.product_kernels import edge_kernel, receiver_kernel, sender_kernel
from geoeq.kernels.llvm.threads import in_order
from geoeq.kernels.operators.tensor_product import RadialFactors
from geoeq.kernels.paths import Paths
from geoeq.kernels.segments import EdgeTensors

__all__ = ["Radial"]

#: Bytes of weights computed at a time: they stay in a cache, and matrix products are large enough to be fast.
_WEIGHTS = 2 * 2**20


def _edges_at_once(matrix: Tensor) -> int:
    return max(64, _WEIGHTS // max(1, matrix.shape[1] * matrix.element_size()))


class _Piece(NamedTuple):
    """Receivers ``first`` to ``last`` and the edges into them, ``begin`` to ``end``."""

    first: int
    last: int
    begin: int
    end: int

    @property
    def edges(self) -> slice:
        return slice(self.begin, self.end)


def _pieces(pointers: Tensor, size: int) -> Iterator[_Piece]:
    """Divide receivers into pieces of at most ``size`` edges; a receiver with more edges is a piece by itself."""
    starts: list[int] = pointers.tolist()
    first = 0
    while first < len(starts) - 1:
        last = max(first + 1, bisect_right(starts, starts[first] + size) - 1)
        yield _Piece(first, last, starts[first], starts[last])
        first = last


def _before(rows: Tensor, piece: _Piece) -> int:
    """Return the address that edge 0 would have, given that the first row belongs to the first edge of the piece."""
    return rows.data_ptr() - piece.begin * rows.shape[1] * rows.element_size()


class _Contractions:
    """The three kernels for the edges of a piece; weights and their gradients have rows for these edges only."""

    def __init__(self, edges: EdgeTensors, paths: Paths, like: Tensor) -> None:
        self.edges, self.paths, self.dtype = edges, paths, like.dtype
        self.identity = torch.arange(len(edges.sender) + 1)

    def _run(self, kernel: Kernel, tensors: Sequence[Tensor | int], first: int, last: int) -> None:
        run(kernel, tensors, self.edges.num_nodes, [first, last])

    def conv(self, piece: _Piece, x: Tensor, harmonics: Tensor, weights: Tensor, out: Tensor, added: bool) -> None:
        """Write ∂Φ/∂g to the rows of these receivers in ``out``."""
        kernel = kernel_of(receiver_kernel, self.paths, True, added, dtype=self.dtype)
        tensors = (x, harmonics, _before(weights, piece), self.edges.sender, self.edges.row_pointers, out)
        self._run(kernel, tensors, piece.first, piece.last)

    def back(self, piece: _Piece, g: Tensor, harmonics: Tensor, weights: Tensor, rows: Tensor, added: bool) -> None:
        """Write the contribution of each edge to ∂Φ/∂x to ``rows``."""
        kernel = kernel_of(sender_kernel, self.paths, True, added, dtype=self.dtype)
        ends = self.edges.receiver, self.identity, self.identity
        tensors = (g, harmonics, _before(weights, piece), *ends, _before(rows, piece))
        self._run(kernel, tensors, piece.begin, piece.end)

    def of_edges(
        self,
        piece: _Piece,
        factors: tuple[Tensor, Tensor, Tensor, Tensor],
        by_harmonics: Tensor | None,
        by_weights: Tensor | None,
        added: bool,
    ) -> None:
        """Write ∂Φ/∂Y to the rows of these edges, and ∂Φ/∂w, for factors x, Y, w and g."""
        x, harmonics, weights, g = factors
        if by_harmonics is None and by_weights is None:
            return
        options = by_harmonics is not None, by_weights is not None, added
        kernel = kernel_of(edge_kernel, self.paths, True, *options, dtype=self.dtype)
        ends = self.edges.sender, self.edges.receiver
        results = (
            0 if by_harmonics is None else by_harmonics,
            0 if by_weights is None else _before(by_weights, piece),
        )
        self._run(kernel, (x, harmonics, _before(weights, piece), g, *ends, *results), piece.begin, piece.end)


def _results(factors: Sequence[Tensor], wanted: Sequence[bool]) -> list[Tensor]:
    """Allocate the gradients by x, harmonics, hidden and matrix; those that are sums over edges are set to zero."""
    sums = (True, False, False, True)
    return [
        (torch.zeros_like(factor) if is_sum else empty(factor, factor.shape)) if want else factor.new_empty(0)
        for factor, want, is_sum in zip(factors, wanted, sums, strict=True)
    ]


class _Sums(NamedTuple):
    """Contribution of a piece to the gradients by x (one row per edge, for its sender) and by the matrix."""

    edges: slice
    back: Tensor | None
    matrix: Tensor | None

    def add(self, by_x: Tensor, sender: Tensor, by_matrix: Tensor) -> None:
        if self.back is not None:
            by_x.index_add_(0, sender[self.edges], self.back)
        if self.matrix is not None:
            by_matrix.add_(self.matrix)


class Radial:
    """The radial part of ``ProductKernels`` for the CPU."""

    def radial_conv(self, factors: RadialFactors, edges: EdgeTensors, paths: Paths) -> Tensor:
        x, harmonics, hidden, matrix = factors
        check_senders(edges, x.shape[0])
        out, contractions = empty(x, paths.out_shape(x.shape[0])), _Contractions(edges, paths, x)

        def compute(piece: _Piece) -> None:
            contractions.conv(piece, x, harmonics, hidden[piece.edges] @ matrix, out, added=False)

        for _ in in_order(compute, list(_pieces(edges.row_pointers, _edges_at_once(matrix)))):
            pass
        return out

    def radial_gradients(
        self, factors: RadialFactors, g: Tensor, edges: EdgeTensors, paths: Paths, wanted: Sequence[bool]
    ) -> tuple[Tensor, ...]:
        """Compute the gradients piece by piece; sums over edges are accumulated in the order of the pieces."""
        x, harmonics, hidden, matrix = factors
        by_x, by_harmonics, by_hidden, by_matrix = wanted
        gradients = _results(factors, wanted)
        contractions = _Contractions(edges, paths, x)

        def sums(piece: _Piece) -> _Sums:
            rows, weights = piece.edges, hidden[piece.edges] @ matrix
            by_weights = torch.empty_like(weights) if by_hidden or by_matrix else None
            into = gradients[1] if by_harmonics else None
            contractions.of_edges(piece, (x, harmonics, weights, g), into, by_weights, added=False)
            back = x.new_empty(len(weights), paths.x_dim) if by_x else None
            if back is not None:
                contractions.back(piece, g, harmonics, weights, back, added=False)
            if by_hidden and by_weights is not None:
                torch.mm(by_weights, matrix.T, out=gradients[2][rows])
            return _Sums(rows, back, hidden[rows].T @ by_weights if by_matrix and by_weights is not None else None)

        for part in in_order(sums, list(_pieces(edges.row_pointers, _edges_at_once(matrix)))):
            part.add(gradients[0], edges.sender, gradients[3])
        return tuple(gradients)

    def radial_second(
        self,
        factors: RadialFactors,
        g: Tensor,
        cotangents: Sequence[Tensor],
        edges: EdgeTensors,
        paths: Paths,
        wanted: Sequence[bool],
    ) -> tuple[Tensor, ...]:
        """Differentiate the sum of Φ with one factor after another replaced by its cotangent.

        All uses of a piece's weights share their computation: five matrix products per piece instead of eleven.
        """
        x, harmonics, hidden, matrix = factors
        of_x, of_harmonics, of_hidden, of_matrix = (part if part.numel() else None for part in cotangents)
        by_x, by_harmonics, by_hidden, by_matrix, by_g = wanted
        pairs = zip((*factors, g), wanted, strict=True)
        gradients = [torch.zeros_like(factor) if want else factor.new_empty(0) for factor, want in pairs]
        contractions = _Contractions(edges, paths, x)

        def sums(piece: _Piece) -> _Sums:
            rows = piece.edges
            weights, change = hidden[rows] @ matrix, _change(piece, hidden, matrix, of_hidden, of_matrix)
            terms: dict[str, tuple[Tensor | None, Tensor | None, Tensor | None]] = {
                "x": (of_x, harmonics, weights),
                "harmonics": (x, of_harmonics, weights),
                "weights": (x, harmonics, change),
            }
            by_weights, by_change = (torch.zeros_like(weights) if by_hidden or by_matrix else None for _ in range(2))
            back = x.new_zeros(len(weights), paths.x_dim) if by_x else None
            for replaced, (left, middle, right) in terms.items():
                if left is None or middle is None or right is None:
                    continue
                if by_g:
                    contractions.conv(piece, left, middle, right, gradients[4], added=True)
                if back is not None and replaced != "x":
                    contractions.back(piece, g, middle, right, back, added=True)
                into = gradients[1] if by_harmonics and replaced != "harmonics" else None
                target = by_change if replaced == "weights" else by_weights
                contractions.of_edges(piece, (left, middle, right, g), into, target, added=True)
            total = torch.zeros_like(matrix) if by_matrix else None
            if by_weights is not None and by_change is not None:
                ways = ((by_weights, hidden, matrix), (by_change, of_hidden, of_matrix))
                for part, factor, other in ways:  # w = h R and w' = h' R + h R'
                    if by_hidden and other is not None:
                        gradients[2][rows].addmm_(part, other.T)
                    if total is not None and factor is not None:
                        total.addmm_(factor[rows].T, part)
            return _Sums(rows, back, total)

        for part in in_order(sums, list(_pieces(edges.row_pointers, _edges_at_once(matrix)))):
            part.add(gradients[0], edges.sender, gradients[3])
        return tuple(gradients)


def _change(
    piece: _Piece, hidden: Tensor, matrix: Tensor, of_hidden: Tensor | None, of_matrix: Tensor | None
) -> Tensor | None:
    """Return the change of the weights with the cotangents of their factors."""
    if of_hidden is None:
        return None if of_matrix is None else hidden[piece.edges] @ of_matrix
    change = of_hidden[piece.edges] @ matrix
    return change if of_matrix is None else change.addmm_(hidden[piece.edges], of_matrix)
