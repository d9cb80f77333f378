"""Layer of EquiformerV2: the attention of edge_frames and the feed-forward network of sphere, each after a norm."""

from __future__ import annotations

from typing import Self

from torch import Tensor, nn

from geoeq.errors import check_positive, check_rates, check_sizes
from geoeq.graph import Graph, edge_frames
from geoeq.layers.edge_frames.so2 import frame_matrix
from geoeq.layers.edge_frames.so2_attention import SO2Attention
from geoeq.layers.irreps.dropout import StochasticDepth
from geoeq.layers.irreps.layout import from_coefficients, sphere_irreps, to_coefficients
from geoeq.layers.layer import Layer
from geoeq.layers.sphere.sphere_activation import SphereNonlinearity, sphere_activation
from geoeq.layers.sphere.sphere_feed_forward import FeedForwardKind, SphereFeedForward, feed_forward_activation
from geoeq.layers.sphere.sphere_norm import SphereNorm, SphereNormKind

__all__ = ["EquiformerV2Layer"]


class EquiformerV2Layer(Layer):
    """Attention by SO(2) convolutions and a feed-forward network on the sphere, each after a norm::

        x <- x + attention(norm(x))
        x <- x + feed_forward(norm(x))

    Nonlinearities on a grid of the sphere are equivariant up to an error that falls fast with the resolution; with
    gates for both nonlinearities the layer is exactly equivariant.

    Args:
        lmax, mmax: highest degree, and highest order in the edge frames.
        channels: number C of channels of each degree.
        hidden_channels: number of channels inside the attention.
        heads, alpha_channels, value_channels: number of heads; number of scalars per head from which its attention is
            computed; number of channels of the values of a head.
        feed_forward_channels: number of channels inside the feed-forward network.
        edge_width: number A of edge attributes in ``graph.edge_attr``.
        edge_channels: hidden width of the networks of the edge attributes.
        elements: whether the elements at both ends (``graph.numbers``) are inputs of these networks.
        norm: kind of ``SphereNorm``.
        activation: nonlinearity of the attention: "separable_s2", "s2" or "gate".
        feed_forward: nonlinearity of the feed-forward network: the same, or "separable_grid_mlp", "grid_mlp".
        resolution: number of latitudes and of longitudes of the grids; None for the smallest.
        renormalize, scores_from_values, alpha_dropout: as for ``SO2Attention``.
        drop_path: probability of skipping a branch for a graph in training.
        cutoff: radius in Å at which messages vanish smoothly. None: as published.

    Shapes:
        x: [N, C (lmax + 1)²], irreps ``Cx0e + Cx1o + Cx2e + ...``. Returns the same.

    Raises:
        InputError: an option is not one of those above, or the grid is too small, or a number is out of range.
        TensorError: the graph lacks the edge attributes or the elements.

    Source:
        Liao et al., ICLR 2024, arXiv:2306.12059, figure 2. Differs: with a cutoff, an envelope; derivatives by the
        positions include those of the edge frames (the published code treats the frames as constants).
    """

    group = "SE(3)"

    def __init__(
        self,
        lmax: int,
        mmax: int,
        channels: int,
        hidden_channels: int,
        heads: int,
        alpha_channels: int,
        value_channels: int,
        feed_forward_channels: int,
        edge_width: int,
        edge_channels: int,
        elements: bool = False,
        norm: SphereNormKind = "rms_norm_sh",
        activation: SphereNonlinearity = "separable_s2",
        feed_forward: FeedForwardKind = "separable_grid_mlp",
        resolution: int | None = None,
        renormalize: bool = True,
        scores_from_values: bool = False,
        alpha_dropout: float = 0.0,
        drop_path: float = 0.0,
        cutoff: float | None = None,
    ) -> None:
        super().__init__()
        check_sizes(self, channels=channels, hidden_channels=hidden_channels, heads=heads, resolution=resolution)
        check_sizes(self, alpha_channels=alpha_channels, value_channels=value_channels)
        check_sizes(self, feed_forward_channels=feed_forward_channels, edge_width=edge_width)
        check_sizes(self, edge_channels=edge_channels)
        check_sizes(self, least=0, lmax=lmax)
        check_rates(self, alpha_dropout=alpha_dropout, drop_path=drop_path)
        check_positive(self, cutoff=cutoff)
        self.lmax, self.mmax, self.channels, self.edge_width = lmax, mmax, channels, edge_width
        self.irreps_in = self.irreps_out = sphere_irreps(lmax, channels)
        self.norm_attention = SphereNorm(lmax, channels, norm)
        sizes = lmax, mmax, channels, hidden_channels, heads, alpha_channels, value_channels, channels
        on_sphere = sphere_activation(activation, lmax, mmax, resolution, by_order=True)
        options = edge_width, edge_channels, elements, renormalize, scores_from_values, alpha_dropout, cutoff
        self.attention = SO2Attention(*sizes, on_sphere, *options)
        self.norm_feed_forward = SphereNorm(lmax, channels, norm)
        hidden_activation = feed_forward_activation(feed_forward, lmax, feed_forward_channels, resolution)
        self.feed_forward = SphereFeedForward(lmax, channels, feed_forward_channels, channels, hidden_activation)
        self.depth = StochasticDepth(self.irreps_in, drop_path)

    @classmethod
    def example(cls) -> Self:
        layer = cls(2, 2, 4, 4, 2, 4, 2, 4, edge_width=6, edge_channels=4, elements=True, resolution=18, cutoff=4.0)
        for parameter in layer.parameters():  # large enough for tests to see every term
            nn.init.normal_(parameter, std=0.5)
        return layer

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        frame = frame_matrix(edge_frames(graph, self.lmax), self.lmax, self.mmax).to(x.dtype)
        coefficients = to_coefficients(x, self.lmax, self.channels)
        return from_coefficients(self.on_sphere(coefficients, graph, frame), self.lmax)

    def on_sphere(self, x: Tensor, graph: Graph, frame: Tensor) -> Tensor:
        """Apply the layer to channels-last features, with edge frames that a stack of layers shares.

        Shapes:
            x: [N, (lmax + 1)², C]. frame: [E, R, (lmax + 1)²], of ``frame_matrix``. Returns [N, (lmax + 1)², C].
        """
        x = x + self._drop_path(self.attention(self.norm_attention(x), graph, frame), graph)
        return x + self._drop_path(self.feed_forward(self.norm_feed_forward(x)), graph)

    def _drop_path(self, x: Tensor, graph: Graph) -> Tensor:
        dropped: Tensor = self.depth(x.flatten(1), graph)
        return dropped.view_as(x)
