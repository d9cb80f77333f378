"""The Clebsch-Gordan product: every path (l1, l2, l3) with its own weight."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from geoeq import kernels
from geoeq.errors import TensorError
from geoeq.graph import Graph
from geoeq.layers.layer import Group
from geoeq.layers.products.product import EdgeProduct, checked_degree, product_paths

__all__ = ["ClebschGordanProduct", "clebsch_gordan_product", "degree_of", "scaled_coupling"]


def scaled_coupling(l1: int, l2: int, l3: int) -> Tensor:
    """Return ``kernels.coupling`` scaled so that components of variance 1 give a result of variance 1."""
    return math.sqrt(2 * l3 + 1) * kernels.coupling(l1, l2, l3)


def degree_of(x: Tensor, caller: str) -> int:
    """Return the highest degree of features [..., (lmax + 1)², C].

    Raises:
        TensorError: the number of components is not a square.
    """
    lmax = math.isqrt(x.shape[-2]) - 1
    if (lmax + 1) ** 2 != x.shape[-2]:
        raise TensorError(f"{caller}: features [..., (lmax + 1)², C] have a square number of rows, not {x.shape[-2]}.")
    return lmax


def clebsch_gordan_product(
    x: Tensor, y: Tensor, weights: Tensor | None = None, lmax_out: int | None = None, group: Group = "E(3)"
) -> Tensor:
    """Multiply features with features, channel by channel: ``z_l3 = Σ_paths w_path (x_l1 ⊗ y_l2)_l3``.

    Args:
        x, y: features with C channels of every degree; one of them may have a single channel.
        weights: weights of the paths, in the order of ``product_paths``; by default 1.
        lmax_out: highest degree of the result; by default the sum of those of x and y.
        group: symmetry group, which determines the paths.

    Shapes:
        x: [..., (L1 + 1)², C]. y: [..., (L2 + 1)², C]. weights: [..., P, C]. Returns [..., (lmax_out + 1)², C].

    Raises:
        TensorError: a number of components is not a square.
    """
    lmax, lmax_edge = degree_of(x, "clebsch_gordan_product"), degree_of(y, "clebsch_gordan_product")
    lmax_out = lmax + lmax_edge if lmax_out is None else lmax_out
    shape = torch.broadcast_shapes(x.shape[:-2] + x.shape[-1:], y.shape[:-2] + y.shape[-1:])
    out = [x.new_zeros(*shape[:-1], 2 * degree + 1, shape[-1]) for degree in range(lmax_out + 1)]
    outer: dict[tuple[int, int], Tensor] = {}
    for path, (l1, l2, l3) in enumerate(product_paths(lmax, lmax_edge, lmax_out, group)):
        if (l1, l2) not in outer:
            left, right = x[..., l1**2 : (l1 + 1) ** 2, :], y[..., l2**2 : (l2 + 1) ** 2, :]
            outer[l1, l2] = (left.unsqueeze(-2) * right.unsqueeze(-3)).flatten(-3, -2)  # [..., (2l1+1)(2l2+1), C]
        coefficients = scaled_coupling(l1, l2, l3).flatten(0, 1).mT.to(x)  # [2 l3 + 1, (2l1+1)(2l2+1)]
        part = coefficients @ outer[l1, l2]
        out[l3] = out[l3] + (part if weights is None else part * weights[..., path : path + 1, :])
    return torch.cat(out, dim=-2)


class ClebschGordanProduct(EdgeProduct):
    """The full product, with C weights for each path ``(l1, l2, l3)`` of features, harmonics and result.

    ``z_l3 = Σ_l1,l2 w_l1,l2,l3 (x_l1 ⊗ Y_l2)_l3 / sqrt(number of paths into l3)`` is the general bilinear equivariant
    map, computed in one call to ``geoeq.kernels``. The harmonics, which have one channel, are contracted first: O(L⁵)
    per channel.

    Args:
        channels, lmax, lmax_edge, lmax_out, group: as for ``EdgeProduct``; lmax_edge and lmax_out are lmax by default.

    Shapes:
        As ``EdgeProduct``; weights: [E, P C], path after path in the order of ``product_paths``.

    Source:
        Thomas et al. 2018, arXiv:1802.08219, section 4.1.
    """

    def __init__(
        self,
        channels: int,
        lmax: int,
        lmax_edge: int | None = None,
        lmax_out: int | None = None,
        group: Group = "E(3)",
    ) -> None:
        lmax_edge = lmax if lmax_edge is None else checked_degree("lmax_edge", lmax_edge)
        super().__init__(channels, lmax, lmax_edge, lmax if lmax_out is None else lmax_out, group)
        triples = self.interactions
        num_paths = [sum(triple[2] == l3 for triple in triples) for l3 in range(self.lmax_out + 1)]
        self.weight_numel = len(triples) * channels
        self.paths = kernels.Paths(
            paths=tuple(
                kernels.Path(
                    degrees=(l1, l2, l3),
                    x_block=l1,
                    x_channels=channels,
                    out_block=l3,
                    out_channel=0,
                    out_channels=channels,
                    weight_start=n * channels,
                    mode="uvu",
                    coefficient=math.sqrt((2 * l3 + 1) / num_paths[l3]),
                )
                for n, (l1, l2, l3) in enumerate(triples)
            ),
            x_blocks=tuple((2 * degree + 1, channels) for degree in range(self.lmax + 1)),
            out_blocks=tuple((2 * degree + 1, channels) for degree in range(self.lmax_out + 1)),
        )

    @property
    def expressivity(self) -> int:
        return len(self.interactions)

    def messages(self, x: Tensor, weights: Tensor, graph: Graph, envelope: Tensor | None = None) -> Tensor:
        weights = weights if envelope is None else weights * envelope
        return torch.cat(kernels.tensor_product(x.flatten(1), self.harmonics(graph), weights, self.paths), dim=1)

    def forward(self, x: Tensor, weights: Tensor, graph: Graph, envelope: Tensor | None = None) -> Tensor:
        weights = weights if envelope is None else weights * envelope
        return self._by_degree(
            kernels.tensor_product_conv(x.flatten(1), self.harmonics(graph), weights, graph, self.paths)
        )

    def from_hidden(
        self, x: Tensor, hidden: Tensor, matrix: Tensor, graph: Graph, envelope: Tensor | None = None
    ) -> Tensor:
        hidden = hidden if envelope is None else hidden * envelope
        factors = x.flatten(1), self.harmonics(graph), hidden, matrix
        return self._by_degree(kernels.radial_tensor_product_conv(*factors, graph, self.paths))

    def _by_degree(self, out: Tensor) -> Tensor:
        result: Tensor = out.unflatten(1, ((self.lmax_out + 1) ** 2, self.channels))
        return result
