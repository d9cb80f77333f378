"""Messages of eSCN: convolutions of low rank in the frame of each edge, and SiLU on the sphere."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from geoeq import kernels
from geoeq.errors import TensorError
from geoeq.fields import NUM_ELEMENTS
from geoeq.graph import Graph
from geoeq.layers.edge_attributes import edge_attributes
from geoeq.layers.edge_frames.so2 import order_sizes
from geoeq.layers.radial.envelope import PolynomialEnvelope
from geoeq.layers.sphere.s2_grid import Normalization
from geoeq.layers.sphere.sphere_activation import GridSiLU

__all__ = ["ESCNEdgeNetwork", "ESCNMessage", "keep_variance"]

#: edges at a time
CHUNK = 1024


def keep_variance(module: nn.Module) -> None:
    """Start linear maps so that signals neither die out nor explode: 1.2 makes up for some of what SiLU takes away."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=1.2 * part.in_features**-0.5)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


class ESCNEdgeNetwork(nn.Module):
    """Invariants of an edge: ``SiLU(W SiLU(V a_ij + s(z_j) + r(z_i)))``, from its attributes and its two elements.

    Args:
        edge_width: number A of edge attributes.
        width_out: number K of invariants.
        elements: take the elements, each end from a table of its own.

    Shapes:
        graph.edge_attr: [E, A]. Returns [E, K].

    Raises:
        TensorError: the graph has no edge attributes, others than A, or no elements where they are needed.

    Source:
        Passaro & Zitnick, ICML 2023, arXiv:2302.03655.
    """

    def __init__(self, edge_width: int, width_out: int, elements: bool = True) -> None:
        super().__init__()
        self.edge_width = edge_width
        self.attributes = nn.Linear(edge_width, width_out)
        self.sender = nn.Embedding(NUM_ELEMENTS, width_out) if elements else None
        self.receiver = nn.Embedding(NUM_ELEMENTS, width_out) if elements else None
        self.last = nn.Linear(width_out, width_out)
        keep_variance(self)

    def forward(self, graph: Graph) -> Tensor:
        hidden = self.attributes(edge_attributes(graph, self.edge_width, "ESCNLayer"))  # [E, K]
        if self.sender is not None and self.receiver is not None:
            if graph.numbers is None:
                raise TensorError("ESCNLayer: elements are needed, and the graph has no numbers (z).")
            hidden = hidden + kernels.gather(self.sender.weight, kernels.gather(graph.numbers, graph.sender))
            hidden = hidden + kernels.gather(self.receiver.weight, kernels.gather(graph.numbers, graph.receiver))
        result: Tensor = nn.functional.silu(self.last(nn.functional.silu(hidden)))
        return result


class ESCNMessage(nn.Module):
    """The sum over neighbours of what an edge makes of the features at its two ends.

    More than ``CHUNK`` edges are done some at a time, and computed again for derivatives, so that no message is kept.
    In the frame of the edge, for each order m, with ``g`` gates made of the invariants of the edge::

        h_m = g_m ⊙ (W_m x_j,m | W'_m x_i,m)        complex W for m > 0: real and imaginary parts gated apart
        y_m = V_m h_m                               sender's and receiver's part are summed
        m_i = Σ_j D_ij^-1 SiLU(y)                   SiLU on a grid of the sphere

    Args:
        lmax, mmax: highest degree and order.
        channels: number C of channels.
        hidden: number H of hidden channels, for m = 0, and for the real and the imaginary part of each m > 0.
        edge_channels: number K of invariants of an edge.
        edge_width, elements: of ``ESCNEdgeNetwork``.
        resolution: latitudes and longitudes of the grid; None as published, the smallest.
        normalization: of the values on the grid, as for ``S2Grid``.
        average_degree: what the sum over neighbours is divided by; 1 as published.
        cutoff: in Å; messages then fall smoothly to zero there. None: as published.

    Shapes:
        sphere: [N, (lmax + 1)², C]. frame: [E, R, (lmax + 1)²], of ``geoeq.layers.edge_frames.so2.frame_matrix``.
        Returns [N, (lmax + 1)², C].

    Source:
        Passaro & Zitnick, ICML 2023, arXiv:2302.03655.
    """

    def __init__(
        self,
        lmax: int,
        mmax: int,
        channels: int,
        hidden: int,
        edge_channels: int,
        edge_width: int,
        elements: bool = True,
        resolution: int | None = None,
        normalization: Normalization = "component",
        average_degree: float = 1.0,
        cutoff: float | None = None,
    ) -> None:
        super().__init__()
        self.lmax, self.mmax, self.hidden, self.average_degree = lmax, mmax, hidden, average_degree
        sizes = order_sizes(lmax, mmax)
        self.rows = [sizes[0], *(size for size in sizes[1:] for _ in range(2))]
        self.edge = ESCNEdgeNetwork(edge_width, edge_channels, elements)
        # A row of h for m = 0, two for m > 0; the sender's and the receiver's side by side.
        self.ranks = [2 * hidden] + [4 * hidden] * mmax
        self.gates = nn.Linear(edge_channels, sum(self.ranks))
        self.sender, self.receiver, self.last = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for size, rank in zip(sizes, self.ranks, strict=True):
            self.sender.append(nn.Linear(size * channels, rank // 2, bias=False))
            self.receiver.append(nn.Linear(size * channels, rank // 2, bias=False))
            self.last.append(nn.Linear(rank, size * channels, bias=False))
        keep_variance(self)
        nn.init.ones_(self.gates.bias)  # open at the start
        self.activation = GridSiLU(lmax, mmax, resolution, normalization, rescale=False, by_order=True)
        self.envelope = None if cutoff is None else PolynomialEnvelope(cutoff)

    def forward(self, sphere: Tensor, graph: Graph, frame: Tensor) -> Tensor:
        inputs = [self.edge(graph), frame, graph.sender, graph.receiver]
        if self.envelope is not None:
            inputs.append(self.envelope(graph.lengths))
        if torch.compiler.is_compiling() or len(frame) <= CHUNK:
            messages = self._edges(sphere, *inputs)
        else:
            chunks = zip(*(value.split(CHUNK) for value in inputs), strict=True)
            messages = torch.cat([self._again(sphere, *chunk) for chunk in chunks])
        return kernels.segment_sum(messages, graph) / self.average_degree

    def _again(self, *inputs: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return self._edges(*inputs)
        result: Tensor = checkpoint(self._edges, *inputs, use_reentrant=False, preserve_rng_state=False)
        return result

    def _edges(
        self, sphere: Tensor, edge: Tensor, frame: Tensor, start: Tensor, end: Tensor, envelope: Tensor | None = None
    ) -> Tensor:
        """Messages of some edges, turned back, [E, (L + 1)², C]; of their invariants, frames, senders and receivers."""
        sender = torch.bmm(frame, kernels.gather(sphere, start)).split(self.rows, dim=1)
        receiver = torch.bmm(frame, kernels.gather(sphere, end)).split(self.rows, dim=1)
        gates = nn.functional.silu(self.gates(edge)).split(self.ranks, dim=-1)

        # 0, +1, -1, +2, ..; split, as the derivative of slices would fill a whole tensor for each.
        ends, parts = zip(sender, receiver, strict=True), []
        for m in range(self.mmax + 1):
            pair = [self._hidden(m, *next(ends)) for _ in range(1 + (m > 0))]
            parts += self._turned(m, pair, gates[m])
        y = torch.cat(parts, dim=-1).unflatten(-1, (-1, sphere.shape[-1]))  # [E, R, C]

        y = self.activation(y, y[:, 0, :0])
        return torch.bmm(frame.transpose(1, 2), y if envelope is None else y * envelope.unsqueeze(-1))

    def _hidden(self, m: int, sender: Tensor, receiver: Tensor) -> Tensor:
        """[E, 2 or 4 parts, H]: real parts of sender and receiver, then for m > 0 their imaginary parts."""
        parts = [self.sender[m](sender.flatten(1)).unflatten(-1, (-1, self.hidden))]
        parts.append(self.receiver[m](receiver.flatten(1)).unflatten(-1, (-1, self.hidden)))
        return torch.stack(parts, dim=2).flatten(1, 2)

    def _turned(self, m: int, pair: list[Tensor], gates: Tensor) -> list[Tensor]:
        """V (g ⊙ h), a complex product for m > 0: ``y_+ = V_r h_r+ - V_i h_i-`` and ``y_- = V_r h_r- + V_i h_i+``."""
        last, gates = self.last[m], gates.unflatten(-1, (-1, self.hidden))
        if m == 0:
            return [last((pair[0] * gates).flatten(1))]
        real, imaginary = zip(*(h.split(2, dim=1) for h in pair), strict=True)
        real_gate, imaginary_gate = gates.split(2, dim=1)
        plus = torch.cat([real[0] * real_gate, -imaginary[1] * imaginary_gate], dim=1)
        minus = torch.cat([real[1] * real_gate, imaginary[0] * imaginary_gate], dim=1)
        return [last(plus.flatten(1)), last(minus.flatten(1))]
