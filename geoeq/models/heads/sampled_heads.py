"""Heads that evaluate features as functions on the sphere, point by point."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from e3nn import o3
from torch import Tensor, nn

from geoeq.errors import InputError, check_sizes
from geoeq.graph import Graph
from geoeq.layers.irreps.layout import sphere_irreps, to_coefficients
from geoeq.layers.sphere.sphere_points import fibonacci_points, point_harmonics, quadrature_points
from geoeq.models.heads.head import Head, checked_name
from geoeq.models.heads.scalar_heads import GraphScalar, linear_weights

__all__ = ["SampledScalar", "SampledVector", "SphereNetwork", "sphere_sizes"]


def sphere_sizes(irreps: o3.Irreps) -> tuple[int, int]:
    """Return lmax and the number C of channels of features ``Cx0e + Cx1o + ...``, functions on the sphere.

    Raises:
        InputError: the features are not functions on the sphere.
    """
    lmax, channels = irreps.lmax if irreps.dim else 0, irreps.count("0e")
    if not channels or irreps.simplify() != sphere_irreps(lmax, channels):
        raise InputError(
            "Heads on the sphere need the same number of channels of every degree, such as 8x0e+8x1o+8x2e; "
            f"the network gives {irreps}."
        )
    return lmax, channels


class SphereNetwork(nn.Module):
    """Mean over directions p of a network of the channels' values at p, or of the network times p.

    ``Σ_p w_p f(x(p))`` or ``Σ_p w_p f(x(p)) p`` with ``x(p) = Σ_lm x_lm Y_lm(p)`` and f of three linear maps.

    Args:
        irreps: irreps of the features, with the same number C of channels of every degree, ``Cx0e + Cx1o + Cx2e +
            ...``.
        vector: compute the second form.
        degree: degree of the polynomials for which the mean is exact; None takes 4 lmax + 8, with lmax the highest
            degree of the features. The equivariance error falls faster than any power of it.
        samples: number of points of the published Fibonacci spiral, which then replaces the quadrature.

    Shapes:
        x: [N, irreps.dim]. Returns [N, 1], or [N, 3] if vector.

    Raises:
        InputError: the features are not functions on the sphere.
    """

    weights: Tensor
    harmonics: Tensor

    def __init__(self, irreps: o3.Irreps, vector: bool, degree: int | None, samples: int | None) -> None:
        super().__init__()
        self.lmax, self.channels = sphere_sizes(irreps)
        self.vector, self.degree = vector, 4 * self.lmax + 8 if degree is None else degree
        if samples is None:
            self._set_points(*quadrature_points(self.degree))
        else:
            self._set_points(fibonacci_points(samples), torch.full((samples,), 1 / samples, dtype=torch.float64))
        self.first = nn.Linear(self.channels, self.channels)
        self.second = nn.Linear(self.channels, self.channels)
        self.last = nn.Linear(self.channels, 1, bias=False)

    def _set_points(self, points: Tensor, weights: Tensor) -> None:
        moments = points if self.vector else torch.ones_like(points[:, :1])
        self.register_buffer("weights", weights.unsqueeze(-1) * moments)  # [P, 1 or 3] float64
        self.register_buffer("harmonics", point_harmonics(points, self.lmax))  # [P, (L + 1)²] float64

    def finer(self, factor: int = 2) -> SphereNetwork:
        """Return a copy that averages over a quadrature of ``factor`` times the degree."""
        network = copy.deepcopy(self)
        network._set_points(*(part.to(self.weights.device) for part in quadrature_points(factor * self.degree)))
        return network

    def sampled(self, x: Tensor) -> Tensor:
        """Return the input of the last linear map at every point, [N, P, C]."""
        sphere = to_coefficients(x, self.lmax, self.channels) @ self.first.weight.T  # before sampling: fewer rows
        values = nn.functional.silu(torch.matmul(self.harmonics.to(x.dtype), sphere) + self.first.bias)  # [N, P, C]
        return nn.functional.silu(self.second(values))

    def forward(self, x: Tensor) -> Tensor:
        values = self.last(self.sampled(x)).squeeze(-1)  # [N, P]
        result: Tensor = values @ self.weights.to(x.dtype)
        return result


class SampledScalar(GraphScalar):
    """A scalar of each graph: the sum or mean over atoms of a ``SphereNetwork`` of their features.

    Args:
        name: a graph-level scalar of ``geoeq.fields``.
        reduce: "sum" or "mean"; by default a sum for extensive quantities.
        degree, samples: see ``SphereNetwork``.

    Shapes:
        Returns [G].

    Raises:
        InputError: a number is out of range.

    Source:
        Passaro & Zitnick, ICML 2023, arXiv:2302.03655. Differs: an exact quadrature unless ``samples``.
    """

    def __init__(
        self,
        name: str,
        reduce: Literal["sum", "mean"] | None = None,
        degree: int | None = None,
        samples: int | None = None,
    ) -> None:
        super().__init__(name, reduce)
        check_sizes(self, samples=samples)
        check_sizes(self, least=0, degree=degree)
        self.degree, self.samples = degree, samples

    def make(self, irreps: o3.Irreps) -> None:
        self.network = nn.Sequential(SphereNetwork(irreps, False, self.degree, self.samples))
        self.pooled = None

    def scalars(self, x: Tensor) -> Tensor:
        """Return all features; the network makes them invariant."""
        return x

    def last_of_atoms(self, x: Tensor) -> Tensor:
        """Return the mean over directions of the input of the last linear map."""
        network: SphereNetwork = self.network[0]  # type: ignore[assignment]
        return torch.einsum("npc,pm->nc", network.sampled(x), network.weights.to(x.dtype))

    def last_weights(self) -> Tensor:
        """Return the weights of the linear map that acts at each point."""
        return linear_weights(self.network[0].last)  # type: ignore[arg-type]


class SampledVector(Head):
    """A vector of each node: the mean over directions of a network of the features there, times the direction.

    Args:
        name: a node-level vector of ``geoeq.fields``, such as "forces" predicted directly.
        degree, samples: see ``SphereNetwork``.

    Shapes:
        Returns [N, 3].

    Raises:
        InputError: a number is out of range.

    Source:
        Passaro & Zitnick, ICML 2023, arXiv:2302.03655. Differs: an exact quadrature unless ``samples``.
    """

    def __init__(self, name: str, degree: int | None = None, samples: int | None = None) -> None:
        super().__init__()
        check_sizes(self, samples=samples)
        check_sizes(self, least=0, degree=degree)
        self.name = checked_name(name, "node", "1o")
        self.names = (name,)
        self.degree, self.samples = degree, samples

    def make(self, irreps: o3.Irreps) -> None:
        self.network = nn.Sequential(SphereNetwork(irreps, True, self.degree, self.samples))

    def forward(self, x: Tensor, graph: Graph) -> dict[str, Tensor]:
        return {self.name: self.network(x)}
