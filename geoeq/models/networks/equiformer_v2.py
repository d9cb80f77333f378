"""EquiformerV2: equivariant transformer for high degrees."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self, get_args

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch_geometric.data import Data

from geoeq.derivatives import in_transform
from geoeq.errors import InputError, check_name, check_positive, check_rates, check_sizes
from geoeq.graph import Graph, edge_frames, with_frames
from geoeq.layers.edge_frames.edge_degree import EdgeDegreeEmbedding
from geoeq.layers.edge_frames.so2 import frame_matrix
from geoeq.layers.equiformer_v2 import EquiformerV2Layer
from geoeq.layers.inputs.embedding import EdgeEmbedding, EdgeInput, EndsEmbedding, IrrepsEmbedding, NodeInput
from geoeq.layers.irreps.layout import from_coefficients, sphere_irreps, to_coefficients
from geoeq.layers.radial.bases import GaussianBasis
from geoeq.layers.sphere.sphere_activation import SphereNonlinearity
from geoeq.layers.sphere.sphere_feed_forward import FeedForwardKind
from geoeq.layers.sphere.sphere_norm import SphereNorm, SphereNormKind
from geoeq.models.heads.head import Head
from geoeq.models.model import Model
from geoeq.models.networks.equiformer_v2_heads import AttentionVector, SphereScalar
from geoeq.models.published.equiformer_v2_weights import load_reference, reference_arguments

__all__ = ["EquiformerV2"]

#: Embedding of the elements at both ends of an edge: a table in each layer, one table of the network, or none.
AtomEdgeEmbedding = Literal["separate", "shared", "none"]

#: Mean degree in the IS2RE data set with a cutoff of 5 Å and at most 100 neighbours, used by all published networks.
_AVERAGE_DEGREE = 23.395238876342773

_OC20: dict[str, Any] = {
    "lmax": 6,
    "mmax": 2,
    "layers": 12,
    "channels": 128,
    "hidden_channels": 64,
    "attention_heads": 8,
    "alpha_channels": 64,
    "value_channels": 16,
    "feed_forward_channels": 128,
    "norm": "layer_norm_sh",
    "activation": "separable_s2",
    "feed_forward": "separable_grid_mlp",
    "resolution": 18,
    "edge_channels": 128,
    "num_basis": 600,
    "atom_edge_embedding": "separate",
    "alpha_dropout": 0.1,
    "drop_path": 0.05,
    "cutoff": 12.0,
}


class EquiformerV2(Model):
    """Equivariant transformer with SO(2) convolutions, for high degrees.

    Features are functions on the sphere of every node. Operations on a grid are equivariant only up to an error,
    which falls fast with the resolution; with "gate" for both nonlinearities the network is exactly equivariant.

    Args:
        heads: heads of the predicted quantities, for example ``[SphereScalar("energy")]``.
        lmax, mmax: highest degree, and highest order in the frames of edges.
        layers: number of layers.
        channels: number C of channels of each degree.
        hidden_channels, alpha_channels, value_channels, feed_forward_channels: see ``EquiformerV2Layer``.
        norm, activation, feed_forward, resolution, renormalize: see ``EquiformerV2Layer``.
        scores_from_values, edge_channels, alpha_dropout, drop_path: see ``EquiformerV2Layer``.
        attention_heads: number of attention heads.
        num_basis: number of Gaussians of the distance; each is twice as wide as their spacing.
        atom_edge_embedding: tables for the elements at both ends of an edge, as inputs of the networks of edges:
            "separate" for each layer, "shared", or "none".
        average_degree: divisor of the sums over edges in the initial embedding.
        cutoff: cutoff radius in Å; messages decay smoothly to zero there. None takes ``data.edge_index``, or connects
            all atoms of a graph, with messages as published.
        basis_cutoff: radius at which the Gaussians end, in Å; by default the cutoff.
        node_inputs, features_irreps, velocity: see ``IrrepsEmbedding``.
        edge_inputs, edge_attr_width: inputs of an edge besides the Gaussians, see ``EdgeEmbedding``.
        detach_frames: treat the directions of edges as constants in derivatives, as the published code does;
            derivatives of the output are then not exact.
        checkpoint_blocks: store only the features between layers for the backward pass and recompute the rest, which
            saves memory at the cost of another forward pass.
        elements: atomic numbers that the model accepts; None for any.

    Shapes:
        Positions in Å.

    Raises:
        InputError: neither a cutoff nor a basis_cutoff is given, or an option is unknown, or a number is out of range.

    Source:
        Liao et al., ICLR 2024, arXiv:2306.12059. Differs: derivatives by the positions go through the frames, unless
        ``detach_frames``; with a cutoff, messages decay smoothly to zero there; frames are a smooth function of the
        edge nearly everywhere and not rotated at random; all neighbours within the cutoff count, not the nearest 20.
        Presets have the published norm, "layer_norm_sh", which is stable from lmax 4 on (see ``SphereNorm``).
    """

    group = "SE(3)"
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "oc20": _OC20,
        "oc20-31m": _OC20 | {"layers": 8, "lmax": 4, "drop_path": 0.1},
        "oc20-153m": _OC20 | {"layers": 20, "mmax": 3, "drop_path": 0.1},
    }

    def __init__(
        self,
        heads: Sequence[Head],
        lmax: int = 6,
        mmax: int = 2,
        layers: int = 12,
        channels: int = 128,
        hidden_channels: int = 64,
        attention_heads: int = 8,
        alpha_channels: int = 64,
        value_channels: int = 16,
        feed_forward_channels: int = 128,
        norm: SphereNormKind = "rms_norm_sh",
        activation: SphereNonlinearity = "separable_s2",
        feed_forward: FeedForwardKind = "separable_grid_mlp",
        resolution: int | None = None,
        renormalize: bool = True,
        scores_from_values: bool = False,
        edge_channels: int = 128,
        num_basis: int = 128,
        atom_edge_embedding: AtomEdgeEmbedding = "separate",
        average_degree: float = _AVERAGE_DEGREE,
        alpha_dropout: float = 0.0,
        drop_path: float = 0.0,
        cutoff: float | None = None,
        basis_cutoff: float | None = None,
        node_inputs: Sequence[NodeInput] = ("element",),
        features_irreps: str = "",
        velocity: bool = False,
        edge_inputs: Sequence[EdgeInput] = (),
        edge_attr_width: int = 0,
        detach_frames: bool = False,
        checkpoint_blocks: bool = False,
        elements: Sequence[int] | None = None,
    ) -> None:
        check_sizes(self, layers=layers, channels=channels, hidden_channels=hidden_channels)
        check_sizes(self, attention_heads=attention_heads, alpha_channels=alpha_channels, value_channels=value_channels)
        check_sizes(self, feed_forward_channels=feed_forward_channels, resolution=resolution)
        check_sizes(self, edge_channels=edge_channels, num_basis=num_basis)
        check_sizes(self, least=0, lmax=lmax, mmax=mmax, edge_attr_width=edge_attr_width)
        check_positive(self, average_degree=average_degree, basis_cutoff=basis_cutoff)
        check_rates(self, alpha_dropout=alpha_dropout, drop_path=drop_path)
        irreps = sphere_irreps(lmax, channels)
        super().__init__(heads, irreps, cutoff, lmax, elements)
        check_name("atom_edge_embedding", atom_edge_embedding, get_args(AtomEdgeEmbedding))
        basis_cutoff = cutoff if basis_cutoff is None else basis_cutoff
        if basis_cutoff is None:
            raise InputError("EquiformerV2 needs a cutoff, or a basis_cutoff at which its Gaussians end.")
        self.mmax, self.channels = mmax, channels
        self.detach_frames, self.checkpoint_blocks = detach_frames, checkpoint_blocks
        self.embedding = IrrepsEmbedding(irreps, node_inputs, features_irreps, velocity, self.group)
        self.basis = GaussianBasis(num_basis, basis_cutoff, spread=2.0)
        self.edge_embedding = EdgeEmbedding(edge_inputs, edge_attr_width, cutoff=basis_cutoff)
        self.ends = EndsEmbedding(edge_channels) if atom_edge_embedding == "shared" else None
        edge_width = num_basis + self.edge_embedding.width + (2 * edge_channels if self.ends else 0)
        separate = atom_edge_embedding == "separate"
        self.edge_degree = EdgeDegreeEmbedding(
            lmax, mmax, channels, edge_width, edge_channels, separate, average_degree, cutoff
        )
        attention = hidden_channels, attention_heads, alpha_channels, value_channels
        sizes = lmax, mmax, channels, *attention, feed_forward_channels, edge_width, edge_channels
        kinds = norm, activation, feed_forward, resolution, renormalize, scores_from_values
        self.layers = nn.ModuleList(
            EquiformerV2Layer(*sizes, separate, *kinds, alpha_dropout, drop_path, cutoff) for _ in range(layers)
        )
        self.norm = SphereNorm(lmax, channels, norm)

    @property
    def inexact_derivatives(self) -> str:
        """Name of the option that makes derivatives by the positions inexact; empty if they are exact."""
        return "detach_frames" if self.detach_frames else ""

    @classmethod
    def example(cls) -> Self:
        sizes: dict[str, Any] = {"mmax": 2, "hidden_channels": 4, "alpha_channels": 4, "value_channels": 2}
        edges: dict[str, Any] = {"edge_channels": 4, "resolution": 18, "cutoff": 4.0}
        return cls(
            [
                SphereScalar("energy", feed_forward_channels=4, resolution=18),
                AttentionVector("forces", heads=2, edge_width=6, **sizes, **edges),
            ],
            lmax=2,
            layers=1,
            channels=4,
            attention_heads=2,
            feed_forward_channels=4,
            num_basis=6,
            average_degree=4.0,
            **sizes,
            **edges,
        )

    def prepare(self, data: Data, graph: Graph) -> Graph:
        parts = [self.basis(graph.lengths), self.edge_embedding(data, graph)]
        if self.ends is not None:
            parts.append(self.ends(graph))
        edge_attr = torch.cat([part for part in parts if part is not None], dim=-1)  # [E, A]
        harmonics = graph.harmonics.detach() if self.detach_frames else graph.harmonics
        graph = dataclasses.replace(graph, edge_attr=edge_attr, harmonics=harmonics)
        return with_frames(graph, self.lmax, self.detach_frames)

    def encode(self, data: Data, graph: Graph) -> Tensor:
        x = to_coefficients(self.embedding(data), self.lmax, self.channels)  # [N, (L + 1)², C]
        x = x + self.edge_degree(graph)
        frame = frame_matrix(edge_frames(graph, self.lmax), self.lmax, self.mmax).to(x.dtype)
        for layer in self.layers:
            if self.checkpoint_blocks and torch.is_grad_enabled() and not in_transform():
                x = checkpoint(layer.on_sphere, x, graph, frame, use_reentrant=False)
            else:
                x = layer.on_sphere(x, graph, frame)  # type: ignore[operator]
        return from_coefficients(self.norm(x), self.lmax)

    @classmethod
    def from_reference(cls, state_dict: Mapping[str, Tensor], **hyperparameters: Any) -> Self:
        """Return the authors' network for OC20, from parameters under their names and its own hyperparameters.

        It takes ``data.edge_index``. The energy is divided by 77.81317 as published. Buffers are ignored.

        Args:
            hyperparameters: the arguments of their class.
        """
        model = cls(**reference_arguments(hyperparameters))
        load_reference(model, state_dict)
        return model
