"""The messages of two networks as they are written without kernels: what ``models.py`` measures the others against.

``plain_messages()`` replaces, while it lasts, the messages of Equiformer by e3nn's tensor product of all edges at once,
and those of the SE(3)-Transformer by their definition, with the weights of every edge as an array. Results are equal.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import torch
from e3nn import o3
from torch import Tensor

from geoeq import kernels
from geoeq.kernels.operators.path_plan import PathPlan

__all__ = ["plain_messages"]


@functools.cache
def _product(paths: kernels.Paths, weighted: bool) -> o3.TensorProduct:
    irreps_in = o3.Irreps([(channels, ((dim - 1) // 2, 1)) for dim, channels in paths.x_blocks])
    harmonics = o3.Irreps([(1, (degree, 1)) for degree in range(math.isqrt(paths.harmonics_dim))])
    order = _by_channel(paths)
    irreps_out = o3.Irreps([(paths.paths[n].out_channels, (paths.paths[n].degrees[2], 1)) for n in order])
    instructions = [
        (path.x_block, path.degrees[1], order.index(n), "uvu", weighted, path.coefficient**2)
        for n, path in enumerate(paths.paths)
    ]
    plain = {"irrep_normalization": "none", "path_normalization": "none"}
    own = {"shared_weights": False, "internal_weights": False}
    return o3.TensorProduct(irreps_in, harmonics, irreps_out, instructions, **plain, **own)


def _by_channel(paths: kernels.Paths) -> list[int]:
    return sorted(range(len(paths.paths)), key=lambda n: (paths.paths[n].out_block, paths.paths[n].out_channel))


def _tensor_product_linear(
    x: Tensor, harmonics: Tensor, weights: Tensor | None, paths: kernels.Paths, maps: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """``geoeq.kernels.tensor_product_linear`` by e3nn: its layout has channels first."""
    blocks = x.split([dim * channels for dim, channels in paths.x_blocks], dim=1)
    turned = [part.unflatten(1, block).mT.flatten(1) for part, block in zip(blocks, paths.x_blocks, strict=True)]
    product = _product(paths, weights is not None)
    out = product(torch.cat(turned, dim=1), harmonics[:, : paths.harmonics_dim], weights)
    found: list[list[Tensor]] = [[] for _ in paths.out_blocks]
    sizes = [irrep.dim for irrep in product.irreps_out]
    for n, part in zip(_by_channel(paths), out.split(sizes, dim=1), strict=True):
        path = paths.paths[n]
        found[path.out_block].append(part.unflatten(1, (path.out_channels, 2 * path.degrees[2] + 1)))
    joined = (torch.cat(parts, dim=1).mT for parts in found)
    return tuple(block @ matrix for block, matrix in zip(joined, maps, strict=True))


def _attended_product(
    x: Tensor, harmonics: Tensor, weights: Tensor, graph: Any, paths: kernels.Paths, maps: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """``geoeq.kernels.attended_product`` as attention is written: values of all edges, then their sum."""
    values = _tensor_product_linear(x, harmonics, None, paths, maps)
    blocks = [(value.shape[1], value.shape[2]) for value in values]
    flat = torch.cat([value.flatten(1) for value in values], dim=1)
    sums = kernels.weighted_sum(flat, weights, graph, blocks=blocks).split([rows * width for rows, width in blocks], 1)
    return tuple(part.unflatten(1, block) for part, block in zip(sums, blocks, strict=True))


def _path_messages(
    x: Tensor, hidden: Tensor, weight: Tensor, basis: Tensor, pointers: Tensor, plan: PathPlan
) -> Tensor:
    """``path_messages`` of geoeq.kernels.operators with the weights of each edge, [E, C_in, paths, C_out]."""
    sent = x.repeat_interleave(pointers.diff(), dim=0)
    pairs, messages = iter(plan.pairs), []
    for out in plan.outs:
        terms = []
        for pair in (next(pairs) for _ in plan.inputs):
            matrix = weight[pair.weight].view(pair.channels_in, plan.hidden, pair.columns)
            weights = torch.einsum("eh,chf->ecf", hidden, matrix)  # [E, C_in, paths · C_out]
            features = sent[:, pair.x].view(-1, pair.dim, pair.channels_in)
            terms.append((features @ weights).reshape(len(sent), pair.dim * pair.paths, out.channels))
        couplings = basis[:, out.basis].view(-1, out.rows, out.dim)
        messages.append((couplings.mT @ torch.cat(terms, dim=1)).flatten(1))
    return torch.cat(messages, dim=1)


def _at_once(function: Callable[..., Tensor], rows: Sequence[Tensor], shared: Sequence[Tensor], size: int) -> Tensor:
    return function(*rows, *shared)


@contextlib.contextmanager
def plain_messages() -> Iterator[None]:
    """Within the block, messages are made without kernels."""
    replaced: dict[str, Any] = {
        "geoeq.kernels.tensor_product_linear": _tensor_product_linear,
        "geoeq.kernels.attended_product": _attended_product,
        "geoeq.layers.equiformer.chunked": _at_once,
        "geoeq.layers.se3_transformer.se3_messages.path_messages": _path_messages,
    }
    with contextlib.ExitStack() as stack:
        for place, function in replaced.items():
            stack.enter_context(mock.patch(place, function))
        stack.enter_context(kernels.use("reference"))  # sums at receivers
        yield
