"""Frames from the vectors of an equivariant network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Self

import torch
from e3nn import o3
from torch import Tensor
from torch_geometric.data import Data

from geoeq import kernels
from geoeq.errors import InputError
from geoeq.geometry.frames import (
    FrameGroup,
    Frames,
    checked_threshold,
    has_reflections,
    inputs_that_turn,
    needed_vectors,
    vector_frames,
)
from geoeq.graph import Graph
from geoeq.models.heads.head import Head, two_layers
from geoeq.models.model import Model
from geoeq.models.networks.egnn import EGNN
from geoeq.models.symmetrized.canonicalizer import Canonicalizer, checked_group, without_edges_of_others

__all__ = ["FrameVectors", "NetworkCanonicalizer"]

#: vectors of a frame.
_COUNT = 3


class FrameVectors(Head):
    """Three vectors of a structure, for the frames of ``NetworkCanonicalizer``.

    ``v_k = mean_atoms Σ_c a_kc(h) u_c``, with u the position less the centroid and the vectors among the features, and
    a a network of the scalars; for the position less its mean, which would cancel. With them comes the mean of the
    squares ``|a_kc(h) u_c|²``, which says how much else has cancelled.

    Shapes:
        Returns "vectors" [G, 3, 3], rows, in Å, and "squares" [G, 3], in Å².
    """

    def __init__(self) -> None:
        super().__init__()
        self.names = ()

    def make(self, irreps: o3.Irreps) -> None:
        if self.width == 0:
            raise InputError(f"FrameVectors needs scalars (0e) among the features; there are {irreps}.")
        self.network = two_layers(self.width, _COUNT * (1 + self.num_vectors))

    def forward(self, x: Tensor, graph: Graph) -> dict[str, Tensor]:
        centroids = kernels.segment_mean(graph.positions, graph.batch, graph.num_graphs)
        positions = graph.positions - kernels.gather(centroids, graph.batch)
        own = torch.cat([positions.unsqueeze(1), self.vectors(x)], dim=1)  # [N, 1 + V, 3]
        factors = self.network(self.scalars(x)).unflatten(-1, (-1, _COUNT))  # [N, 1 + V, 3]
        mean = kernels.segment_mean(factors[:, 0], graph.batch, graph.num_graphs)
        factors = torch.cat([(factors[:, 0] - kernels.gather(mean, graph.batch)).unsqueeze(1), factors[:, 1:]], dim=1)
        factors = factors.mT  # [N, 3, 1 + V]
        parts = factors.unsqueeze(-1) * own.unsqueeze(1)  # [N, 3, 1 + V, 3]
        total, square = parts.sum(2).flatten(1), parts.square().sum((2, 3))
        vectors = kernels.segment_mean(total, graph.batch, graph.num_graphs)
        squares = kernels.segment_mean(square, graph.batch, graph.num_graphs)
        return {"vectors": vectors.unflatten(-1, (_COUNT, 3)), "squares": squares}


class NetworkCanonicalizer(Canonicalizer):
    """The frame that is made of vectors which an equivariant network finds.

    Any network of the group E(3) will do, such as ``EGNN([FrameVectors()], ...)``; ``VectorNeurons`` is that of the
    paper. Two vectors make a rotation, as the 6D representation does, and a third says on which side of a mirror the
    structure is. What its own symmetry leaves open in a structure, no vector can decide: there, and smoothly towards
    there, frames are the weighted ones of ``FrameAveraging``, so that outputs are right for every structure, and
    continuous (``geoeq.geometry.frames.vector_frames``).

    With noise, vectors are ``v_k + noise · ε_k`` with ε normal, and the frame is one at random, whose distribution
    turns with the structure, also with a symmetric one: outputs are equivariant in expectation. The mean over
    ``samples`` draws has 1 / samples of the variance of one.

    The loss "orbit" is ``mean |V Vᵀ - 1|²``, for the vectors V that the group takes: products of vectors are the
    invariants that tell orbits apart, and those of V are those of a rotation if and only if V is one. It
    keeps the vectors long and across each other, where the projection to a rotation changes little and its derivatives
    are small. Lengths are in Å.

    Args:
        network: a Model with the head ``FrameVectors``.
        group: as for ``PCACanonicalizer``.
        axis: "x", "y" or "z" (the default) for SE(2) and E(2).
        threshold: below which frames are not sure; see ``geoeq.geometry.frames.vector_frames``.
        noise: in Å; 0 for none.
        samples: frames that are drawn of each structure; 1 where there is no noise.
        seed: of the noise in evaluation, the same for every structure; None draws from PyTorch's generator.

    Raises:
        InputError: an option is unknown, or the network does not turn as the group does, or has no such head.

    Source:
        Kaba et al., ICML 2023, arXiv:2211.06489, section 4; "orbit" and noise: Nguyen et al. 2023,
        arXiv:2311.07143, and Kim et al., NeurIPS 2023, arXiv:2306.02866. Differs: see
        ``geoeq.geometry.frames.vector_frames``. Nguyen et al. take the matrix of the network for the group element as
        it is,
        and its inverse, and need the loss for that; here it is projected to the group, so that outputs of any degree
        turn exactly, and the loss only makes this harmless. Noise is added to the vectors, not to the input.
    """

    def __init__(
        self,
        network: Model,
        group: FrameGroup = "E(3)",
        axis: str | None = None,
        threshold: float = 0.02,
        noise: float = 0.0,
        samples: int = 1,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.group, self.axis = checked_group(group, axis)
        self.threshold = checked_threshold(threshold)
        if not any(isinstance(head, FrameVectors) for head in network.heads):
            raise InputError(f"{type(network).__name__} needs the head FrameVectors() to find frames.")
        if network.group != "E(3)" and (network.group != "SE(3)" or has_reflections(group)):
            name = type(network).__name__
            raise InputError(f"{name} turns with {network.group}, and frames of {group} are asked for.")
        if noise < 0 or samples < 1 or (noise == 0 and samples > 1):
            raise InputError(f"noise is {noise} and samples are {samples}; more than one sample needs noise above 0.")
        self.network, self.noise, self.samples, self.seed = network, noise, samples, seed
        self.random = noise > 0

    @classmethod
    def example(cls) -> Self:
        return cls(EGNN([FrameVectors()], width=8, layers=1))

    @property
    def auxiliary_losses(self) -> Mapping[str, Callable[[Data], Tensor]]:
        """The losses "prior", "prior_angle" and "orbit"."""
        return {**super().auxiliary_losses, "orbit": self._orbit}

    def forward(self, data: Data) -> Frames:
        group: FrameGroup = self.group  # type: ignore[assignment]
        found = self.network(without_edges_of_others(data, self.network))
        vectors, squares = found["vectors"].unsqueeze(1), found["squares"].unsqueeze(1)  # [G, 1, 3, 3], [G, 1, 3]
        if self.random:
            noise = self._draw(len(vectors)).to(vectors)
            vectors, squares = vectors + noise, squares + noise.square().sum(-1)
        turning, graph, centroids = inputs_that_turn(data, group)
        return vector_frames(vectors, squares, turning, graph, centroids, group, self.axis, self.threshold)

    def _draw(self, num_graphs: int) -> Tensor:
        """[G, samples, 3, 3], or in evaluation with a seed one of the like for all graphs."""
        fixed = not self.training and self.seed is not None
        generator = torch.Generator().manual_seed(self.seed or 0) if fixed else None
        shape = (1 if fixed else num_graphs, self.samples, _COUNT, 3)
        return (self.noise * torch.randn(shape, generator=generator)).expand(num_graphs, -1, -1, -1)

    def _orbit(self, data: Data) -> Tensor:
        vectors = self.network(without_edges_of_others(data, self.network))["vectors"][:, : needed_vectors(self.group)]
        if self.axis is not None:
            across = torch.ones(3, dtype=vectors.dtype, device=vectors.device)
            across["xyz".index(self.axis)] = 0
            vectors = vectors * across
        identity = torch.eye(vectors.shape[1], dtype=vectors.dtype, device=vectors.device)
        distance: Tensor = (vectors @ vectors.mT - identity).square().mean()
        return distance
