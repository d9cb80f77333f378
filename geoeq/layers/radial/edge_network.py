"""Network from the invariants of an edge to the weights of a message."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear, silu

from geoeq import kernels
from geoeq.graph import Graph
from geoeq.layers.chunked import chunked
from geoeq.layers.inputs.embedding import EndsEmbedding, end_numbers
from geoeq.layers.layer import edge_attributes

__all__ = ["EdgeNetwork"]

#: Edges per chunk: few enough that hidden values fit in a cache of some MB.
CHUNK = 2048


class EdgeNetwork(nn.Module):
    """Two hidden layers, each with layer norm and SiLU, and a linear map of edge attributes and elements.

    The first linear map of the concatenation (attributes, sender's embedding, receiver's embedding) is applied in
    parts: once per element instead of once per edge.

    Args:
        edge_width: number A of edge attributes.
        hidden: width of the hidden layers and of the element embeddings.
        width_out: number of weights.
        elements: whether the elements are inputs, with one embedding for senders and one for receivers.

    Shapes:
        graph.edge_attr: [E, A]. Returns [E, width_out].

    Raises:
        TensorError: the graph does not have A edge attributes, or lacks the elements.

    Source:
        Liao et al., ICLR 2024, arXiv:2306.12059; Liao & Smidt, ICLR 2023, arXiv:2206.11990.
    """

    def __init__(self, edge_width: int, hidden: int, width_out: int, elements: bool = False) -> None:
        super().__init__()
        self.edge_width, self.elements = edge_width, elements
        self.first = nn.Linear(edge_width, hidden)
        if elements:
            self.ends = EndsEmbedding(hidden)
            self.first_sender = nn.Linear(hidden, hidden, bias=False)
            self.first_receiver = nn.Linear(hidden, hidden, bias=False)
        self.rest = nn.Sequential(
            nn.LayerNorm(hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.LayerNorm(hidden),
            nn.SiLU(),
        )
        self.last = nn.Linear(hidden, width_out)
        for module in self.modules():
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, graph: Graph) -> Tensor:
        weights: Tensor = self.last(self.hidden(graph))
        return weights

    def hidden(self, graph: Graph) -> Tensor:
        """Return the input of the last linear map, [E, hidden]."""
        hidden = self.first(edge_attributes(graph, self.edge_width, "EdgeNetwork"))  # [E, H]
        if self.elements:
            sender, receiver = end_numbers(graph)
            hidden = hidden + kernels.gather(self.first_sender(self.ends.sender.weight), sender)
            hidden = hidden + kernels.gather(self.first_receiver(self.ends.receiver.weight), receiver)
        return chunked(_rest, [hidden], list(self.rest.parameters()), CHUNK)


def _rest(hidden: Tensor, *parameters: Tensor) -> Tensor:
    """Apply ``rest``, as a function of its parameters."""
    gain, offset, weight, bias, second_gain, second_offset = parameters
    hidden = linear(silu(layer_norm(hidden, gain.shape, gain, offset)), weight, bias)
    return silu(layer_norm(hidden, gain.shape, second_gain, second_offset))
