"""The convolution by a tensor product as operators of PyTorch, closed under differentiation.

All is one form, linear in each of its factors::

    Φ(x, Y, w, g) = Σ_e Σ_p Σ_ijk C^p_ijk x[sender_e, i] Y[e, j] w[e, p] g[receiver_e, p, k]     (for each channel)

Convolution is ∂Φ/∂g; its derivatives are ∂Φ/∂x, ∂Φ/∂Y and ∂Φ/∂w; their derivatives are the same four again with other
arguments. A backend that has these has derivatives of every order. The radial form has ``w = h R``: h the last hidden
layer of a network of the distance, R its last matrix. It is linear in both. With heads (``Paths.heads``) a weight is
``w[e, h]``, the same for all paths and channels, and g[n, h, p, k] has as many heads.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from geoeq.kernels.backend import EdgeTensors
from geoeq.kernels.fused_kernels import kernels_of
from geoeq.kernels.operators.multilinear import multilinear
from geoeq.kernels.paths import Paths, described_heads, described_paths, described_shapes

__all__ = ["fused_conv", "fused_radial_conv"]

#: What follows the factors: where edges begin and end, the paths as a text, and the name of the backend.
_REST = (
    "Tensor sender",
    "Tensor receiver",
    "Tensor row_pointers",
    "Tensor order",
    "Tensor pointers",
    "str paths",
    "str backend",
)


def _shape(*given: Any) -> tuple[int, ...]:
    # Without heads those that send are those that receive, whose number torch.compile knows of x alone.
    x, row_pointers, paths = given[0], given[-5], given[-2]
    rows = row_pointers.shape[0] - 1 if described_heads(paths) else x.shape[0]
    return described_shapes(paths, rows)[1]


def _conv(x: Tensor, harmonics: Tensor, weights: Tensor, *rest: Any) -> Tensor:
    *edges, paths, backend = rest
    return kernels_of(backend).conv(x, harmonics, weights, EdgeTensors(*edges), described_paths(paths))


def _conv_gradients(x: Tensor, harmonics: Tensor, weights: Tensor, g: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    *tensors, paths, backend, (by_x, *by_edges) = rest
    kernels, edges, described = kernels_of(backend), EdgeTensors(*tensors), described_paths(paths)
    found = kernels.grad_x(g, harmonics, weights, edges, described) if by_x else x.new_empty(0)
    if not any(by_edges):
        return found, harmonics.new_empty(0), weights.new_empty(0)
    return found, *kernels.grad_edges(x, harmonics, weights, g, edges, described, *by_edges)


def _radial(x: Tensor, harmonics: Tensor, hidden: Tensor, matrix: Tensor, *rest: Any) -> Tensor:
    *edges, paths, backend = rest
    tensors, described = EdgeTensors(*edges), described_paths(paths)
    return kernels_of(backend).radial_conv(x, harmonics, hidden, matrix, tensors, described)


def _radial_gradients(
    x: Tensor, harmonics: Tensor, hidden: Tensor, matrix: Tensor, g: Tensor, *rest: Any
) -> tuple[Tensor, ...]:
    *edges, paths, backend, wanted = rest
    tensors, described = EdgeTensors(*edges), described_paths(paths)
    return kernels_of(backend).radial_gradients(x, harmonics, hidden, matrix, g, tensors, described, wanted)


def _radial_second(*given: Any) -> tuple[Tensor, ...]:
    (x, harmonics, hidden, matrix, g), cotangents, (*edges, paths, backend, wanted) = given[:5], given[5:9], given[9:]
    factors, tensors = (x, harmonics, hidden, matrix, g), EdgeTensors(*edges)
    return kernels_of(backend).radial_second(*factors, cotangents, tensors, described_paths(paths), wanted)


_conv_operator = multilinear(
    "tensor_product_conv", ("x", "harmonics", "weights"), _REST, _conv, _conv_gradients, _shape
)
_radial_operator = multilinear(
    "radial_tensor_product_conv",
    ("x", "harmonics", "hidden", "matrix"),
    _REST,
    _radial,
    _radial_gradients,
    _shape,
    _radial_second,
)


def _of_one_dtype(factors: Sequence[Tensor]) -> list[Tensor]:
    """They differ under autocast."""
    dtype = functools.reduce(torch.promote_types, (factor.dtype for factor in factors))
    return [factor.to(dtype) for factor in factors]


def fused_conv(
    x: Tensor, harmonics: Tensor, weights: Tensor | None, edges: EdgeTensors, paths: Paths, backend: str
) -> Tensor:
    """``geoeq.kernels.tensor_product_conv`` by the kernels of a backend, to any order of derivatives.

    Shapes:
        x: [S, x_dim] of S senders, mostly the same N nodes. harmonics: [E, harmonics_dim or more].
        weights: [E, weight_numel]. Returns paths.out_shape(N).
    """
    weights = x.new_empty(0) if weights is None else weights
    factors = _of_one_dtype([x, harmonics[:, : paths.harmonics_dim], weights])
    return _conv_operator(*factors, *edges.tensors(), paths.description, backend)


def fused_radial_conv(
    x: Tensor, harmonics: Tensor, hidden: Tensor, matrix: Tensor, edges: EdgeTensors, paths: Paths, backend: str
) -> Tensor:
    """``geoeq.kernels.radial_tensor_product_conv`` by the kernels of a backend, to any order of derivatives.

    Shapes:
        x, harmonics: as for ``fused_conv``. hidden: [E, H]. matrix: [H, weight_numel]. Returns [N, out_dim].
    """
    factors = _of_one_dtype([x, harmonics[:, : paths.harmonics_dim], hidden, matrix])
    return _radial_operator(*factors, *edges.tensors(), paths.description, backend)
