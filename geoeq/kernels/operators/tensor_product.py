"""Tensor products and their convolution: operators of PyTorch over the kernels of a fused backend.

All derive from one form, linear in each of its factors::

    Φ(x, Y, w, g) = Σ_e Σ_p Σ_ijk C^p_ijk x[sender_e, i] Y[e, j] w[e, p] g[receiver_e, p, k]     (for each channel)

The convolution is ∂Φ/∂g; its derivatives are ∂Φ/∂x, ∂Φ/∂Y and ∂Φ/∂w; their derivatives are the same four again with
other arguments. A backend that provides these four has derivatives of every order. In the radial form ``w = h R``, with
h the last hidden layer of a network of the distance and R its last matrix; the form is linear in both. With heads
(``Paths.heads``) a weight is ``w[e, h]``, the same for all paths and channels, and g[n, h, p, k] has a head index too.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from geoeq.kernels.backend import registered
from geoeq.kernels.backends.reference import Backend
from geoeq.kernels.operators.multilinear import multilinear
from geoeq.kernels.paths import Paths, described_heads, described_paths, described_shapes
from geoeq.kernels.segments import EdgeTensors, Segments

__all__ = ["EdgeFactors", "FusedProducts", "ProductKernels", "RadialFactors"]

#: Factors x, harmonics, weights and g of Φ.
EdgeFactors = tuple[Tensor, Tensor, Tensor, Tensor]

#: Factors x, harmonics, hidden and matrix of the radial form.
RadialFactors = tuple[Tensor, Tensor, Tensor, Tensor]


class ProductKernels(Protocol):
    """Kernels of the convolution and its derivatives.

    All tensors are contiguous, and all floating-point tensors have one dtype. ``wanted`` selects the gradients to
    compute; the others are returned empty.

    Shapes:
        x: [S, paths.x_dim] of S senders, which are the N nodes if there are no heads. harmonics: [E,
        paths.harmonics_dim]. weights: [E, paths.weight_numel], or empty if all are one. g: paths.out_shape(N).
        hidden: [E, H] and matrix: [H, paths.weight_numel], whose product is the weights.
    """

    def takes(self, paths: Paths) -> bool:
        """Return whether there are kernels for such paths."""

    def conv(self, x: Tensor, harmonics: Tensor, weights: Tensor, edges: EdgeTensors, paths: Paths) -> Tensor:
        """Return ∂Φ/∂g, shaped like g."""

    def grad_x(self, g: Tensor, harmonics: Tensor, weights: Tensor, edges: EdgeTensors, paths: Paths) -> Tensor:
        """Return ∂Φ/∂x, [S, x_dim]."""

    def grad_edges(
        self, factors: EdgeFactors, edges: EdgeTensors, paths: Paths, wanted: Sequence[bool]
    ) -> tuple[Tensor, Tensor]:
        """Return ∂Φ/∂Y and ∂Φ/∂w, shaped like harmonics and weights; one that is not requested is empty."""

    def radial_conv(self, factors: RadialFactors, edges: EdgeTensors, paths: Paths) -> Tensor:
        """Return ``conv`` with the weights ``hidden @ matrix``, which never exist for all edges at once."""

    def radial_gradients(
        self, factors: RadialFactors, g: Tensor, edges: EdgeTensors, paths: Paths, wanted: Sequence[bool]
    ) -> tuple[Tensor, ...]:
        """Return the gradients of ``radial_conv`` with respect to its factors."""

    def radial_second(
        self,
        factors: RadialFactors,
        g: Tensor,
        cotangents: Sequence[Tensor],
        edges: EdgeTensors,
        paths: Paths,
        wanted: Sequence[bool],
    ) -> tuple[Tensor, ...]:
        """Return the gradients of those with respect to the factors and g: see ``composed_second``."""


class FusedProducts(Backend):
    """Tensor products by fused kernels if there are kernels for the paths, else in plain PyTorch.

    Attributes:
        kernels: the kernels.
    """

    kernels: ProductKernels

    def tensor_product(self, x: Tensor, harmonics: Tensor, weights: Tensor | None, paths: Paths) -> tuple[Tensor, ...]:
        if not self.kernels.takes(paths):
            return super().tensor_product(x, harmonics, weights, paths)
        divided = self.kernels.takes(paths.by_block)
        pointers = torch.arange(x.shape[0] + 1, device=x.device)
        loops = EdgeTensors.from_edges(pointers[:-1], pointers)  # each row is an edge from itself to itself
        out = _conv(x, harmonics, weights, loops, paths.by_block if divided else paths, self.name)
        if divided:
            parts = out.split([x.shape[0] * dim * channels for dim, channels in paths.out_blocks])
        else:
            parts = out.split([dim * channels for dim, channels in paths.out_blocks], dim=1)
        return tuple(part.reshape(x.shape[0], *block) for part, block in zip(parts, paths.out_blocks, strict=True))

    def tensor_product_linear(
        self, x: Tensor, harmonics: Tensor, weights: Tensor | None, paths: Paths, maps: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        if not self.kernels.takes(paths):
            return super().tensor_product_linear(x, harmonics, weights, paths, maps)
        blocks = self.tensor_product(x, harmonics, weights, paths)
        return tuple(block @ matrix for block, matrix in zip(blocks, maps, strict=True))

    def attended_product(
        self, x: Tensor, harmonics: Tensor, weights: Tensor, edges: Segments, paths: Paths, maps: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        if edges.row_pointers is None or not self.kernels.takes(paths):
            return super().attended_product(x, harmonics, weights, edges, paths, maps)
        edge_tensors = EdgeTensors.from_edges(edges.index, edges.row_pointers)
        sums = _conv(x, harmonics, weights, edge_tensors, paths, self.name)  # summed first, for each head
        rows, heads = edges.num_segments, paths.heads
        parts = sums.split([heads * rows * dim * channels for dim, channels in paths.out_blocks])
        blocks = []
        for part, (dim, channels), matrix in zip(parts, paths.out_blocks, maps, strict=True):
            head_maps = matrix.unflatten(1, (heads, -1)).transpose(0, 1)  # [H, channels, V / H]
            mapped = torch.bmm(part.view(heads, rows * dim, channels), head_maps)
            blocks.append(mapped.transpose(0, 1).reshape(rows, dim, matrix.shape[1]))
        return tuple(blocks)

    def tensor_product_conv(
        self, x: Tensor, harmonics: Tensor, weights: Tensor, edges: EdgeTensors, paths: Paths
    ) -> Tensor:
        if not self.kernels.takes(paths):
            return super().tensor_product_conv(x, harmonics, weights, edges, paths)
        return _conv(x, harmonics, weights, edges, paths, self.name)

    def radial_tensor_product_conv(
        self, x: Tensor, harmonics: Tensor, hidden: Tensor, matrix: Tensor, edges: EdgeTensors, paths: Paths
    ) -> Tensor:
        if not self.kernels.takes(paths):
            return super().radial_tensor_product_conv(x, harmonics, hidden, matrix, edges, paths)
        factors = _one_dtype([x, harmonics[:, : paths.harmonics_dim], hidden, matrix])
        return _radial_operator(*factors, *edges.tensors(), paths.description, self.name)


def _conv(
    x: Tensor, harmonics: Tensor, weights: Tensor | None, edges: EdgeTensors, paths: Paths, backend: str
) -> Tensor:
    """Return the convolution, paths.out_shape(N), of S senders."""
    weights = x.new_empty(0) if weights is None else weights
    factors = _one_dtype([x, harmonics[:, : paths.harmonics_dim], weights])
    return _conv_operator(*factors, *edges.tensors(), paths.description, backend)


def _one_dtype(factors: Sequence[Tensor]) -> list[Tensor]:
    """Convert factors to a common dtype; they differ under autocast."""
    dtype = functools.reduce(torch.promote_types, (factor.dtype for factor in factors))
    return [factor.to(dtype) for factor in factors]


#: Arguments after the factors: the edges, the description of the paths, and the name of the backend.
_REST = (
    "Tensor sender",
    "Tensor receiver",
    "Tensor row_pointers",
    "Tensor order",
    "Tensor pointers",
    "str paths",
    "str backend",
)


def _kernels(backend: str) -> ProductKernels:
    return registered(backend, FusedProducts).kernels


def _shape(*arguments: Any) -> tuple[int, ...]:
    # Without heads senders are also the receivers, and torch.compile knows their number from x only.
    x, row_pointers, paths = arguments[0], arguments[-5], arguments[-2]
    rows = row_pointers.shape[0] - 1 if described_heads(paths) else x.shape[0]
    return described_shapes(paths, rows)[1]


def _conv_form(x: Tensor, harmonics: Tensor, weights: Tensor, *rest: Any) -> Tensor:
    *edges, paths, backend = rest
    return _kernels(backend).conv(x, harmonics, weights, EdgeTensors(*edges), described_paths(paths))


def _conv_gradients(x: Tensor, harmonics: Tensor, weights: Tensor, g: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    *tensors, description, backend, (by_x, *by_edges) = rest
    kernels, edges, paths = _kernels(backend), EdgeTensors(*tensors), described_paths(description)
    grad_x = kernels.grad_x(g, harmonics, weights, edges, paths) if by_x else x.new_empty(0)
    if not any(by_edges):
        return grad_x, harmonics.new_empty(0), weights.new_empty(0)
    return grad_x, *kernels.grad_edges((x, harmonics, weights, g), edges, paths, by_edges)


def _radial_form(*arguments: Any) -> Tensor:
    *tensors, paths, backend = arguments[4:]
    return _kernels(backend).radial_conv(arguments[:4], EdgeTensors(*tensors), described_paths(paths))


def _radial_gradients(*arguments: Any) -> tuple[Tensor, ...]:
    g, *tensors, description, backend, wanted = arguments[4:]
    edges, paths = EdgeTensors(*tensors), described_paths(description)
    return _kernels(backend).radial_gradients(arguments[:4], g, edges, paths, wanted)


def _radial_second(*arguments: Any) -> tuple[Tensor, ...]:
    g, *cotangents = arguments[4:9]
    *tensors, description, backend, wanted = arguments[9:]
    edges, paths = EdgeTensors(*tensors), described_paths(description)
    return _kernels(backend).radial_second(arguments[:4], g, cotangents, edges, paths, wanted)


_conv_operator = multilinear(
    "tensor_product_conv", ("x", "harmonics", "weights"), _REST, _conv_form, _conv_gradients, _shape
)
_radial_operator = multilinear(
    "radial_tensor_product_conv",
    ("x", "harmonics", "hidden", "matrix"),
    _REST,
    _radial_form,
    _radial_gradients,
    _shape,
    _radial_second,
)
