"""Vector neurons: message passing with vector-valued channels."""

from __future__ import annotations

from typing import Self

import torch
from e3nn import o3
from torch import Tensor, nn

from geoeq import kernels
from geoeq.errors import check_positive, check_sizes
from geoeq.graph import Graph
from geoeq.layers.irreps.activation import activation_function
from geoeq.layers.layer import EdgeLinear, Layer, Rowwise, check_width
from geoeq.layers.radial.envelope import PolynomialEnvelope

__all__ = ["VectorActivation", "VectorNeuronLayer"]


class VectorActivation(Rowwise):
    """The nonlinearity of vector neurons, ``v + (φ(t) - t) d`` with ``t = v·d`` and a learned direction d per channel.

    A direction is ``d = U v / |U v|``, a linear map of all channels, so it rotates with the input. With φ = "relu" the
    half space behind d is projected to its border (the VN-ReLU of the paper); a smooth φ has no kink there. Where U v
    is much shorter than ε, the function is nearly linear.

    Args:
        channels: number C of vectors.
        activation: name of φ, see ``Activation``.
        eps: ε of the smooth length, ``|d|² = Σ d_k² + ε²``.

    Shapes:
        x: [..., 3 C], irreps ``Cx1o``. Returns the same.

    Raises:
        InputError: φ is unknown, or ε is not positive.

    Source:
        Deng et al., ICCV 2021, arXiv:2104.12229, section 3.2. Differs: any φ; the length is smooth, and the linear map
        before it is ``Linear``.
    """

    def __init__(self, channels: int, activation: str = "silu", eps: float = 0.1) -> None:
        super().__init__()
        check_sizes(self, channels=channels)
        check_positive(self, eps=eps)  # a direction has no derivative at zero without it
        self.irreps_in = self.irreps_out = o3.Irreps(f"{channels}x1o")
        self.channels, self.eps = channels, eps
        self.function = activation_function(activation)
        self.directions = nn.Linear(channels, channels, bias=False)

    @classmethod
    def example(cls) -> Self:
        return cls(4)

    def forward(self, x: Tensor) -> Tensor:
        v = x.unflatten(-1, (self.channels, 3))  # [..., C, 3]
        d: Tensor = self.directions(v.mT).mT
        d = d / (d.square().sum(-1, keepdim=True) + self.eps**2).sqrt()
        t = (v * d).sum(-1, keepdim=True)  # [..., C, 1]
        result: Tensor = v + (self.function(t) - t) * d
        return result.flatten(-2)


class VectorNeuronLayer(Layer):
    """Update vector and scalar node features by an edge convolution of vector neurons.

    With V the C vectors of a node, h its C scalars, r the vector of an edge, σ ``VectorActivation``::

        u_ij = σ(W_1 V_j + W_2 V_i + a_ij r_ij)       a_ij, b_ij, s_ij = φ(h_i, h_j, |r_ij|²)
        V_i <- V_i + W_3 mean_j b_ij u_ij
        h_i <- h_i + ψ(h_i, mean_j s_ij, (W_4 V_i)·V_i)

    Each mean counts the node itself as one more neighbour with a message of zero, so it changes smoothly as neighbours
    come and go.

    Args:
        width: number C of scalar and of vector channels.
        cutoff: radius in Å at which messages vanish smoothly. None: all edges have weight 1.

    Shapes:
        x: [N, 4 C], irreps ``Cx0e + Cx1o``. Returns the same.

    Raises:
        InputError: a number is out of range.
        TensorError: x has the wrong width.

    Source:
        Deng et al., ICCV 2021, arXiv:2104.12229, section 3 and VN-DGCNN. Differs: scalars of the nodes; the mean over
        all neighbours instead of the k nearest; no normalization over the batch; invariants by channel.
    """

    def __init__(self, width: int, cutoff: float | None = None) -> None:
        super().__init__()
        check_sizes(self, width=width)
        check_positive(self, cutoff=cutoff)
        self.width = width
        self.irreps_in = self.irreps_out = o3.Irreps(f"{width}x0e + {width}x1o")
        self.envelope = None if cutoff is None else PolynomialEnvelope(cutoff)
        self.edge = EdgeLinear(width, 1, width)
        self.message = nn.Sequential(nn.SiLU(), nn.Linear(width, 3 * width))
        self.sender, self.receiver = (nn.Linear(width, width, bias=False) for _ in range(2))
        self.activation = VectorActivation(width)
        self.mix, self.partner = (nn.Linear(width, width, bias=False) for _ in range(2))
        self.update = nn.Sequential(nn.Linear(3 * width, width), nn.SiLU(), nn.Linear(width, width))

    @classmethod
    def example(cls) -> Self:
        return cls(width=4, cutoff=4.0)

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        check_width(x, 4 * self.width, "VectorNeuronLayer")
        scalars, vectors = x[:, : self.width], x[:, self.width :].unflatten(-1, (self.width, 3))  # [N, C], [N, C, 3]

        square = graph.vectors.square().sum(-1, keepdim=True)  # [E, 1]
        a, b, s = self.message(self.edge(scalars, square, graph)).split(self.width, dim=-1)  # [E, C] each
        u = kernels.gather(self.sender(vectors.mT).mT.flatten(1), graph.sender)
        u = u + kernels.gather(self.receiver(vectors.mT).mT.flatten(1), graph.receiver)  # [E, 3 C]
        u = self.activation(u + (a.unsqueeze(-1) * graph.vectors.unsqueeze(1)).flatten(1))
        bu = (b.unsqueeze(-1) * u.unflatten(-1, (self.width, 3))).flatten(1)

        means = self._mean(torch.cat([s, bu], dim=-1), graph).to(x.dtype)  # [N, 4 C]
        mean_s, mean_bu = means[:, : self.width], means[:, self.width :].unflatten(-1, (self.width, 3))
        vectors = vectors + self.mix(mean_bu.mT).mT
        invariants = (self.partner(vectors.mT).mT * vectors).sum(-1)  # [N, C]
        scalars = scalars + self.update(torch.cat([scalars, mean_s, invariants], dim=-1))
        return torch.cat([scalars, vectors.flatten(1)], dim=-1)

    def _mean(self, messages: Tensor, graph: Graph) -> Tensor:
        """Compute the mean over the neighbours, weighted by the envelope, and the node itself (a message of zero)."""
        if self.envelope is None:
            return kernels.segment_sum(messages, graph) / (1 + graph.degree.unsqueeze(-1))
        envelope = self.envelope(graph.lengths)  # [E, 1]
        return kernels.weighted_sum(messages, envelope, graph) / (1 + kernels.segment_sum(envelope, graph))
