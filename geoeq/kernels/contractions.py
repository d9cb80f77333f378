"""The convolution by a tensor product as operators of PyTorch, closed under differentiation.

All is one form, linear in each of its factors::

    Φ(x, Y, w, g) = Σ_e Σ_p Σ_ijk C^p_ijk x[sender_e, i] Y[e, j] w[e, p] g[receiver_e, p, k]     (for each channel)

Convolution is ∂Φ/∂g; its derivatives are ∂Φ/∂x, ∂Φ/∂Y and ∂Φ/∂w; their derivatives are the same four again with other
arguments. A backend that has these has derivatives of every order.
"""

from __future__ import annotations

import functools
from typing import Protocol

import torch
from torch import Tensor

from geoeq.kernels.backend import EdgeTensors
from geoeq.kernels.paths import Paths, described_paths, described_shapes

__all__ = ["Contractions", "fused_conv", "register_contractions"]


class Contractions(Protocol):
    """What a backend offers for fused convolutions; all tensors are contiguous and of one dtype.

    Shapes:
        x: [N, paths.x_dim]. harmonics: [E, paths.harmonics_dim]. weights: [E, paths.weight_numel], or empty where
        all are one. g: paths.out_shape(N).
    """

    @staticmethod
    def available() -> str | None:
        """None where it can be used here, else the reason why not."""

    @staticmethod
    def supports(values: Tensor) -> bool:
        """Whether it is meant for this device and dtype."""

    @staticmethod
    def takes(paths: Paths) -> bool:
        """Whether there are kernels for such paths."""

    @staticmethod
    def conv(x: Tensor, harmonics: Tensor, weights: Tensor, edges: EdgeTensors, paths: Paths) -> Tensor:
        """∂Φ/∂g, as g."""

    @staticmethod
    def grad_x(g: Tensor, harmonics: Tensor, weights: Tensor, edges: EdgeTensors, paths: Paths) -> Tensor:
        """∂Φ/∂x, [N, x_dim]."""

    @staticmethod
    def grad_edges(
        x: Tensor,
        harmonics: Tensor,
        weights: Tensor,
        g: Tensor,
        edges: EdgeTensors,
        paths: Paths,
        by_harmonics: bool,
        by_weights: bool,
    ) -> tuple[Tensor, Tensor]:
        """∂Φ/∂Y and ∂Φ/∂w, as harmonics and weights; what is not asked for is empty."""


_CONTRACTIONS: dict[str, type[Contractions]] = {}


def register_contractions(name: str, contractions: type[Contractions]) -> None:
    """Enter the kernels of the backend ``name``."""
    _CONTRACTIONS[name] = contractions


def _edges(*tensors: Tensor) -> EdgeTensors:
    return EdgeTensors(*(tensor.contiguous() for tensor in tensors))


@torch.library.custom_op("geoeq::tensor_product_conv", mutates_args=())
def _conv(
    x: Tensor,
    harmonics: Tensor,
    weights: Tensor,
    sender: Tensor,
    receiver: Tensor,
    row_pointers: Tensor,
    order: Tensor,
    pointers: Tensor,
    paths: str,
    backend: str,
) -> Tensor:
    edges = _edges(sender, receiver, row_pointers, order, pointers)
    factors = x.contiguous(), harmonics.contiguous(), weights.contiguous()
    return _CONTRACTIONS[backend].conv(*factors, edges, described_paths(paths))


@torch.library.custom_op("geoeq::tensor_product_conv_grad_x", mutates_args=())
def _grad_x(
    g: Tensor,
    harmonics: Tensor,
    weights: Tensor,
    sender: Tensor,
    receiver: Tensor,
    row_pointers: Tensor,
    order: Tensor,
    pointers: Tensor,
    paths: str,
    backend: str,
) -> Tensor:
    edges = _edges(sender, receiver, row_pointers, order, pointers)
    factors = g.contiguous(), harmonics.contiguous(), weights.contiguous()
    return _CONTRACTIONS[backend].grad_x(*factors, edges, described_paths(paths))


@torch.library.custom_op("geoeq::tensor_product_conv_grad_edges", mutates_args=())
def _grad_edges(
    x: Tensor,
    harmonics: Tensor,
    weights: Tensor,
    g: Tensor,
    sender: Tensor,
    receiver: Tensor,
    row_pointers: Tensor,
    order: Tensor,
    pointers: Tensor,
    paths: str,
    backend: str,
    by_harmonics: bool,
    by_weights: bool,
) -> tuple[Tensor, Tensor]:
    edges = _edges(sender, receiver, row_pointers, order, pointers)
    factors = x.contiguous(), harmonics.contiguous(), weights.contiguous(), g.contiguous()
    return _CONTRACTIONS[backend].grad_edges(*factors, edges, described_paths(paths), by_harmonics, by_weights)


@_conv.register_fake
def _(x, harmonics, weights, sender, receiver, row_pointers, order, pointers, paths, backend):  # type: ignore[no-untyped-def]
    return x.new_empty(described_shapes(paths, x.shape[0])[1])


@_grad_x.register_fake
def _(g, harmonics, weights, sender, receiver, row_pointers, order, pointers, paths, backend):  # type: ignore[no-untyped-def]
    return g.new_empty(described_shapes(paths, row_pointers.shape[0] - 1)[0])


@_grad_edges.register_fake
def _(  # type: ignore[no-untyped-def]
    x, harmonics, weights, g, sender, receiver, row_pointers, order, pointers, paths, backend, by_harmonics, by_weights
):
    return (
        harmonics.new_empty(harmonics.shape if by_harmonics else (0,)),
        weights.new_empty(weights.shape if by_weights else (0,)),
    )


# Derivatives. The last seven arguments of the first two operators are edges, paths and backend.


def _keep(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.save_for_backward(*inputs[:8])
    ctx.options = inputs[8:]


def _conv_backward(ctx, g):  # type: ignore[no-untyped-def]
    x, harmonics, weights, *edges = ctx.saved_tensors
    need_x, *need = ctx.needs_input_grad[:3]
    by_x = _grad_x(g, harmonics, weights, *edges, *ctx.options) if need_x else None
    return by_x, *_by_edges((x, harmonics, weights, g), edges, ctx.options, need), *[None] * 7  # type: ignore[no-untyped-call]


def _grad_x_backward(ctx, x):  # type: ignore[no-untyped-def]
    g, harmonics, weights, *edges = ctx.saved_tensors
    need_g, *need = ctx.needs_input_grad[:3]
    by_g = _conv(x, harmonics, weights, *edges, *ctx.options) if need_g else None
    return by_g, *_by_edges((x, harmonics, weights, g), edges, ctx.options, need), *[None] * 7  # type: ignore[no-untyped-call]


def _by_edges(factors, edges, options, need):  # type: ignore[no-untyped-def]
    """The derivatives by harmonics and weights, of those that are needed."""
    if not any(need):
        return None, None
    found = _grad_edges(*factors, *edges, *options, *need)
    return tuple(value if needed else None for value, needed in zip(found, need, strict=True))


def _keep_edges(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.save_for_backward(*inputs[:9])
    ctx.options, ctx.asked = inputs[9:11], inputs[11:]


def _grad_edges_backward(ctx, harmonics_cotangent, weights_cotangent):  # type: ignore[no-untyped-def]
    """Each of the two results is the form with one factor open: the cotangent takes its place."""
    x, harmonics, weights, g, *edges = ctx.saved_tensors
    need_x, need_harmonics, need_weights, need_g = ctx.needs_input_grad[:4]
    rest = (*edges, *ctx.options)
    by_x, by_harmonics, by_weights, by_g = None, None, None, None
    pairs = []  # harmonics and weights, one of them a cotangent
    if ctx.asked[0] and harmonics_cotangent is not None:
        pairs.append((harmonics_cotangent, weights))
        if need_weights:
            by_weights = _grad_edges(x, harmonics_cotangent, weights, g, *rest, False, True)[1]
    if ctx.asked[1] and weights_cotangent is not None:
        pairs.append((harmonics, weights_cotangent))
        if need_harmonics:
            by_harmonics = _grad_edges(x, harmonics, weights_cotangent, g, *rest, True, False)[0]
    for pair in pairs:
        if need_x:
            part = _grad_x(g, *pair, *rest)
            by_x = part if by_x is None else by_x + part
        if need_g:
            part = _conv(x, *pair, *rest)
            by_g = part if by_g is None else by_g + part
    return by_x, by_harmonics, by_weights, by_g, *[None] * 9


_conv.register_autograd(_conv_backward, setup_context=_keep)
_grad_x.register_autograd(_grad_x_backward, setup_context=_keep)
_grad_edges.register_autograd(_grad_edges_backward, setup_context=_keep_edges)


def fused_conv(
    x: Tensor, harmonics: Tensor, weights: Tensor | None, edges: EdgeTensors, paths: Paths, backend: str
) -> Tensor:
    """``geoeq.kernels.tensor_product_conv`` by the kernels of a backend, to any order of derivatives.

    Shapes:
        x: [N, x_dim]. harmonics: [E, harmonics_dim or more]. weights: [E, weight_numel]. Returns paths.out_shape(N).
    """
    weights = x.new_empty(0) if weights is None else weights
    factors = x, harmonics[:, : paths.harmonics_dim], weights
    dtype = functools.reduce(torch.promote_types, (factor.dtype for factor in factors))  # they differ under autocast
    out: Tensor = _conv(*(factor.to(dtype) for factor in factors), *edges.tensors(), paths.description, backend)
    return out
