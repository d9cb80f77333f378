"""Learned canonicalization: frames from the vectors of an equivariant network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Self, get_args

import torch
from e3nn import o3
from torch import Tensor
from torch_geometric.data import Data

from geoeq import kernels
from geoeq.errors import InputError, check_name, check_sizes
from geoeq.geometry.frames import (
    FrameGroup,
    Frames,
    Images,
    between_images,
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
from geoeq.models.symmetrized.canonicalizer import Canonicalizer, checked_group, without_foreign_edges

__all__ = ["FrameVectors", "NetworkCanonicalizer"]

#: number of vectors of a frame.
_COUNT = 3


class FrameVectors(Head):
    """Three vectors of a structure, for the frames of ``NetworkCanonicalizer``.

    ``v_k = mean_atoms Σ_c a_kc(h) u_c``, where u are the position relative to the centroid and the vectors among the
    features, and a is a network of the scalars; the factors of the position are taken relative to their mean, whose
    contribution cancels. The mean of the squares ``|a_kc(h) u_c|²`` measures how much of the sum has cancelled.

    Args:
        images: see ``FrameAveraging``.

    Shapes:
        Returns "vectors" [G, 3, 3], rows, in Å, and "squares" [G, 3], in Å².
    """

    def __init__(self, images: Images = "any") -> None:
        super().__init__()
        check_name("choice of images", images, get_args(Images))
        self.names = ()
        self.images: Images = images

    def make(self, irreps: o3.Irreps) -> None:
        self.network = two_layers(self, _COUNT * (1 + self.num_vectors))

    def forward(self, x: Tensor, graph: Graph) -> dict[str, Tensor]:
        centroids = kernels.segment_mean(graph.positions, graph.batch, graph.num_graphs)
        positions = graph.positions - kernels.gather(centroids, graph.batch)
        if self.images == "any" and graph.cell is not None and graph.pbc is not None:
            positions = between_images(positions, graph.cell, graph.pbc, graph.ptr)
        inputs = torch.cat([positions.unsqueeze(1), self.vectors(x)], dim=1)  # [N, 1 + V, 3]
        factors = self.network(self.scalars(x)).unflatten(-1, (-1, _COUNT))  # [N, 1 + V, 3]
        mean = kernels.segment_mean(factors[:, 0], graph.batch, graph.num_graphs)
        factors = torch.cat([(factors[:, 0] - kernels.gather(mean, graph.batch)).unsqueeze(1), factors[:, 1:]], dim=1)
        factors = factors.mT  # [N, 3, 1 + V]
        parts = factors.unsqueeze(-1) * inputs.unsqueeze(1)  # [N, 3, 1 + V, 3]
        total, square = parts.sum(2).flatten(1), parts.square().sum((2, 3))
        vectors = kernels.segment_mean(total, graph.batch, graph.num_graphs)
        squares = kernels.segment_mean(square, graph.batch, graph.num_graphs)
        return {"vectors": vectors.unflatten(-1, (_COUNT, 3)), "squares": squares}


class NetworkCanonicalizer(Canonicalizer):
    """Frame computed from vectors that an equivariant network predicts.

    Any network of the group E(3) can be used, such as ``EGNN([FrameVectors()], ...)``; ``VectorNeurons`` is that of the
    paper. Two vectors define a rotation, as in the 6D representation, and a third distinguishes mirror images. No
    vector can resolve what the symmetry of a structure itself leaves open: there, and with a smooth transition near
    there, frames are the weighted ones of ``FrameAveraging``, so that outputs are correct for every structure and
    continuous (``geoeq.geometry.frames.vector_frames``).

    With noise, vectors are ``v_k + noise · ε_k`` with normal ε, and the frame is random, with a distribution that
    rotates with the structure, even a symmetric one: outputs are equivariant in expectation. The mean over ``samples``
    draws has 1 / samples of the variance of a single draw.

    The loss "orbit" is ``mean |V Vᵀ - 1|²`` for the vectors V that the group needs: products of vectors are the
    invariants that distinguish orbits, and those of V equal those of a rotation if and only if V is one. The loss keeps
    the vectors long and perpendicular, where the projection to a rotation changes little and its derivatives are small.
    Lengths are in Å.

    Args:
        network: a Model with the head ``FrameVectors``.
        group: see ``PCACanonicalizer``.
        axis: "x", "y" or "z" (the default) for SE(2) and E(2).
        threshold: threshold below which frames are ambiguous; see ``geoeq.geometry.frames.vector_frames``.
        noise: standard deviation of the noise in Å; 0 for none.
        samples: number of frames drawn for each structure; 1 without noise.
        seed: random seed of the noise in evaluation, the same for every structure; None draws from PyTorch's generator.
        images: see ``FrameAveraging``.

    Raises:
        InputError: an option is unknown, the symmetry of the network does not cover the group, or the head is missing,
            or a number is out of range.

    Source:
        Kaba et al., ICML 2023, arXiv:2211.06489, section 4; "orbit" and noise: Nguyen et al. 2023,
        arXiv:2311.07143, and Kim et al., NeurIPS 2023, arXiv:2306.02866. Differs: see
        ``geoeq.geometry.frames.vector_frames``. Nguyen et al. use the matrix of the network and its inverse as the
        group element without projection, and need the loss for that; here it is projected to the group, so that outputs
        of any degree rotate exactly, and the loss only keeps the projection well conditioned. Noise is added to the
        vectors, not to the input.
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
        images: Images = "any",
    ) -> None:
        super().__init__()
        check_name("choice of images", images, get_args(Images))
        self.images: Images = images
        self.group, self.axis = checked_group(group, axis)
        self.threshold = checked_threshold(threshold)
        if not any(isinstance(head, FrameVectors) for head in network.heads):
            raise InputError(f"{type(network).__name__} needs the head FrameVectors() to predict frames.")
        if network.group != "E(3)" and (network.group != "SE(3)" or has_reflections(group)):
            name = type(network).__name__
            raise InputError(f"{name} is equivariant under {network.group}, which does not cover frames of {group}.")
        check_sizes(self, samples=samples)
        if not 0 <= noise < float("inf") or (noise == 0 and samples > 1):
            raise InputError(f"noise is {noise} and samples is {samples}; more than one sample needs noise above 0.")
        self.network, self.noise, self.samples, self.seed = network, noise, samples, seed
        self.random = noise > 0

    @classmethod
    def example(cls) -> Self:
        return cls(EGNN([FrameVectors()], width=8, layers=1))

    @property
    def auxiliary_losses(self) -> Mapping[str, Callable[[Data], Tensor]]:
        """Auxiliary losses "prior", "prior_angle" and "orbit"."""
        return {**super().auxiliary_losses, "orbit": self._orbit}

    def forward(self, data: Data) -> Frames:
        group: FrameGroup = self.group  # type: ignore[assignment]
        outputs = self.network(without_foreign_edges(data, self.network))
        vectors, squares = outputs["vectors"].unsqueeze(1), outputs["squares"].unsqueeze(1)  # [G, 1, 3, 3], [G, 1, 3]
        if self.random:
            noise = self._draw(len(vectors)).to(vectors)
            vectors, squares = vectors + noise, squares + noise.square().sum(-1)
        inputs, graph, centroids = inputs_that_turn(data, group, self.images)
        return vector_frames(vectors, squares, inputs, graph, centroids, group, self.axis, self.threshold)

    def _draw(self, num_graphs: int) -> Tensor:
        """Return noise [G, samples, 3, 3]; in evaluation with a seed, the same for all graphs."""
        fixed = not self.training and self.seed is not None
        generator = torch.Generator().manual_seed(self.seed or 0) if fixed else None
        shape = (1 if fixed else num_graphs, self.samples, _COUNT, 3)
        return (self.noise * torch.randn(shape, generator=generator)).expand(num_graphs, -1, -1, -1)

    def _orbit(self, data: Data) -> Tensor:
        vectors = self.network(without_foreign_edges(data, self.network))["vectors"][:, : needed_vectors(self.group)]
        if self.axis is not None:
            perpendicular = torch.ones(3, dtype=vectors.dtype, device=vectors.device)
            perpendicular["xyz".index(self.axis)] = 0
            vectors = vectors * perpendicular
        identity = torch.eye(vectors.shape[1], dtype=vectors.dtype, device=vectors.device)
        distance: Tensor = (vectors @ vectors.mT - identity).square().mean()
        return distance
