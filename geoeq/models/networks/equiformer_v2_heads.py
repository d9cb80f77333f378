"""Heads of EquiformerV2: a feed-forward network on the sphere, and attention to a vector."""

from __future__ import annotations

import torch
from e3nn import o3
from torch import Tensor, nn

from geoeq.errors import InputError, check_positive, check_sizes
from geoeq.graph import Graph, edge_frames
from geoeq.layers.edge_frames.so2 import frame_matrix
from geoeq.layers.edge_frames.so2_attention import SO2Attention
from geoeq.layers.irreps.layout import to_coefficients
from geoeq.layers.irreps.linear import DegreeLinear
from geoeq.layers.sphere.sphere_activation import SphereNonlinearity, sphere_activation
from geoeq.layers.sphere.sphere_feed_forward import FeedForwardKind, SphereFeedForward, feed_forward_activation
from geoeq.models.heads.head import Head, checked_name
from geoeq.models.heads.sampled_heads import sphere_sizes
from geoeq.models.heads.scalar_heads import GraphScalar, with_one

__all__ = ["AttentionVector", "SphereScalar"]


class _ScalarOfSphere(nn.Module):
    """The l = 0 part [N, 1] of a feed-forward network with one channel, from features [N, C (lmax + 1)²]."""

    def __init__(self, lmax: int, channels: int, network: SphereFeedForward) -> None:
        super().__init__()
        self.lmax, self.channels, self.network = lmax, channels, network

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.network(to_coefficients(x, self.lmax, self.channels))[:, 0]
        return result

    def hidden(self, x: Tensor) -> Tensor:
        """Return the l = 0 part of the input of the last linear map, [N, H]."""
        return self.network.hidden(to_coefficients(x, self.lmax, self.channels))[:, 0]


class SphereScalar(GraphScalar):
    """A scalar of each graph, as ``GraphScalar``, from a feed-forward network of functions on the sphere.

    Args:
        name: a graph-level scalar of ``geoeq.fields``.
        feed_forward_channels, feed_forward, resolution: see ``EquiformerV2Layer``.

    Shapes:
        Returns [G].

    Raises:
        InputError: the features are not functions on the sphere, or a number is out of range.

    Source:
        Liao et al., ICLR 2024, arXiv:2306.12059, section 4.4. Differs: references, shift and scale are fitted to the
        training set; the published code divides by the average number of nodes, 77.81317.
    """

    def __init__(
        self,
        name: str = "energy",
        feed_forward_channels: int = 128,
        feed_forward: FeedForwardKind = "separable_grid_mlp",
        resolution: int | None = None,
    ) -> None:
        super().__init__(name)
        check_sizes(self, feed_forward_channels=feed_forward_channels, resolution=resolution)
        self.hidden, self.feed_forward, self.resolution = feed_forward_channels, feed_forward, resolution

    def make(self, irreps: o3.Irreps) -> None:
        lmax, channels = sphere_sizes(irreps)
        activation = feed_forward_activation(self.feed_forward, lmax, self.hidden, self.resolution)
        network = SphereFeedForward(lmax, channels, self.hidden, 1, activation)
        self.network = nn.Sequential(_ScalarOfSphere(lmax, channels, network))
        self.pooled = None

    def scalars(self, x: Tensor) -> Tensor:
        return x

    def last_of_atoms(self, x: Tensor) -> Tensor:
        """Return the l = 0 part of the input of the last linear map."""
        return with_one(self.network[0].hidden(x))  # type: ignore[operator]

    def last_weights(self) -> Tensor:
        """Return the weights of l = 0 and the bias."""
        last: DegreeLinear = self.network[0].network.last  # type: ignore[assignment,union-attr]
        return torch.cat([last.weight[0].flatten(), last.bias])  # type: ignore[list-item]


class AttentionVector(Head):
    """A vector of each node: the l = 1 part of a further attention with a single output channel.

    Args:
        name: a node-level vector of ``geoeq.fields``.
        mmax: highest order in the frames of edges.
        hidden_channels, heads, alpha_channels, value_channels: see ``EquiformerV2Layer``.
        edge_width, edge_channels, elements, cutoff: see ``EquiformerV2Layer``.
        activation, resolution, renormalize, scores_from_values: see ``EquiformerV2Layer``.

    Shapes:
        Returns [N, 3].

    Raises:
        InputError: the features are not functions on the sphere, or lmax is 0, or a number is out of range.

    Source:
        Liao et al., ICLR 2024, arXiv:2306.12059, section 4.4.
    """

    def __init__(
        self,
        name: str = "forces",
        mmax: int = 2,
        hidden_channels: int = 64,
        heads: int = 8,
        alpha_channels: int = 64,
        value_channels: int = 16,
        edge_width: int = 600,
        edge_channels: int = 128,
        elements: bool = True,
        activation: SphereNonlinearity = "separable_s2",
        resolution: int | None = None,
        renormalize: bool = True,
        scores_from_values: bool = False,
        cutoff: float | None = None,
    ) -> None:
        super().__init__()
        check_sizes(self, hidden_channels=hidden_channels, heads=heads, alpha_channels=alpha_channels)
        check_sizes(self, value_channels=value_channels, edge_width=edge_width, edge_channels=edge_channels)
        check_sizes(self, resolution=resolution)
        check_sizes(self, least=0, mmax=mmax)
        check_positive(self, cutoff=cutoff)
        self.name = checked_name(name, "node", "1o")
        self.names = (name,)
        self.mmax, self.hidden_channels, self.heads = mmax, hidden_channels, heads
        self.alpha_channels, self.value_channels = alpha_channels, value_channels
        self.edge_width, self.edge_channels, self.elements = edge_width, edge_channels, elements
        self.activation, self.resolution = activation, resolution
        self.renormalize, self.scores_from_values, self.cutoff = renormalize, scores_from_values, cutoff

    def make(self, irreps: o3.Irreps) -> None:
        self.lmax, self.channels = sphere_sizes(irreps)
        if self.lmax == 0:
            raise InputError(f"AttentionVector needs features of degree 1; the network gives {irreps}.")
        sizes = self.lmax, self.mmax, self.channels, self.hidden_channels
        heads = self.heads, self.alpha_channels, self.value_channels
        on_sphere = sphere_activation(self.activation, self.lmax, self.mmax, self.resolution, by_order=True)
        edges = self.edge_width, self.edge_channels, self.elements
        options = self.renormalize, self.scores_from_values
        self.attention = SO2Attention(*sizes, *heads, 1, on_sphere, *edges, *options, cutoff=self.cutoff)

    def forward(self, x: Tensor, graph: Graph) -> dict[str, Tensor]:
        frame = frame_matrix(edge_frames(graph, self.lmax), self.lmax, self.mmax).to(x.dtype)
        y = self.attention(to_coefficients(x, self.lmax, self.channels), graph, frame)  # [N, (L + 1)², 1]
        return {self.name: y[:, 1:4, 0]}
