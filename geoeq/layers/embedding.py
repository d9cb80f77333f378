"""What a node or an edge is, before any message: its invariant input features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self, get_args

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from geoeq import kernels
from geoeq.errors import InputError, TensorError, unknown_name
from geoeq.fields import NUM_ELEMENTS
from geoeq.graph import Graph
from geoeq.layers.radial import BesselBasis
from geoeq.neighbors import edge_lengths as safe_norm

__all__ = ["EdgeEmbedding", "EdgeInput", "NodeEmbedding", "NodeInput"]

NodeInput = Literal["element", "charge", "speed", "features"]
EdgeInput = Literal["square_distance", "charge_product", "edge_attr", "bessel"]


def _required(data: Data, name: str, needed_by: str) -> Tensor:
    value = getattr(data, name, None)
    if not isinstance(value, Tensor):
        raise TensorError(f"The input '{needed_by}' needs data.{name}, which is missing.")
    return value


def _known(inputs: Sequence[str], known: Sequence[str], kind: str) -> tuple[str, ...]:
    for name in inputs:
        if name not in known:
            raise InputError(unknown_name(kind, name, known))
    return tuple(inputs)


def _columns(value: Tensor, width: int, name: str) -> Tensor:
    value = value.reshape(value.shape[0], -1)
    if value.shape[-1] != width:
        raise TensorError(f"data.{name} has {value.shape[-1]} columns; the model was made for {width}.")
    return value


class NodeEmbedding(nn.Module):
    """Invariant inputs of a node to C channels: a table for the element, one linear map for the rest.

    Args:
        width: number C of channels.
        inputs: any of "element" (``data.z``), "charge" (``data.charge``), "speed" (the length of
            ``data.vel``) and "features" (``data.x``).
        features_width: number of columns of ``data.x``.

    Shapes:
        Returns [N, C].

    Raises:
        InputError: an input is unknown, or there is none.
        TensorError: an input is missing from the data, or has another width.
    """

    def __init__(self, width: int, inputs: Sequence[NodeInput] = ("element",), features_width: int = 0) -> None:
        super().__init__()
        self.inputs = _known(inputs, get_args(NodeInput), "node input")
        if not self.inputs:
            raise InputError("node_inputs is empty: a model needs at least one, such as 'element'.")
        if ("features" in self.inputs) != (features_width > 0):
            raise InputError("features_width goes with the node input 'features': give both or neither.")
        self.features_width = features_width
        numbers = ("charge" in self.inputs) + ("speed" in self.inputs) + features_width
        self.element = nn.Embedding(NUM_ELEMENTS, width) if "element" in self.inputs else None
        self.linear = nn.Linear(numbers, width) if numbers else None

    @classmethod
    def example(cls) -> Self:
        return cls(8, ("element", "charge", "speed", "features"), features_width=4)

    def forward(self, data: Data) -> Tensor:
        parts: list[Tensor] = []
        for name in self.inputs:
            if name == "charge":
                parts.append(_columns(_required(data, "charge", name), 1, "charge"))
            elif name == "speed":
                parts.append(safe_norm(_required(data, "vel", name)).unsqueeze(-1))
            elif name == "features":
                parts.append(_columns(_required(data, "x", name), self.features_width, "x"))
        x: Tensor | float = 0.0
        if self.element is not None:
            x = self.element(_required(data, "z", "element"))  # [N, C]
        if self.linear is not None:
            x = x + self.linear(torch.cat(parts, dim=-1).to(self.linear.weight.dtype))
        return x  # type: ignore[return-value]  # at least one of the two is there


class EdgeEmbedding(nn.Module):
    """Invariant inputs of an edge, side by side.

    Args:
        inputs: any of "square_distance" (of the input positions), "charge_product" (``q_i q_j``),
            "edge_attr" (``data.edge_attr``) and "bessel" (a Bessel basis of the distance).
        edge_attr_width: number of columns of ``data.edge_attr``.
        num_basis: number of Bessel functions.
        cutoff: of the Bessel functions, in Å.

    Shapes:
        Returns [E, width], or None where there are no inputs. ``width`` is the attribute of that name.

    Raises:
        InputError: an input is unknown, or what it needs is not given.
        TensorError: an input is missing from the data, or has another width.
    """

    def __init__(
        self,
        inputs: Sequence[EdgeInput] = (),
        edge_attr_width: int = 0,
        num_basis: int = 8,
        cutoff: float | None = None,
    ) -> None:
        super().__init__()
        self.inputs = _known(inputs, get_args(EdgeInput), "edge input")
        if ("edge_attr" in self.inputs) != (edge_attr_width > 0):
            raise InputError("edge_attr_width goes with the edge input 'edge_attr': give both or neither.")
        if "bessel" in self.inputs and cutoff is None:
            raise InputError("The edge input 'bessel' needs a cutoff: its functions end there.")
        self.edge_attr_width = edge_attr_width
        self.basis = BesselBasis(num_basis, cutoff) if "bessel" in self.inputs and cutoff is not None else None
        widths = {"square_distance": 1, "charge_product": 1, "edge_attr": edge_attr_width, "bessel": num_basis}
        self.width = sum(widths[name] for name in self.inputs)

    @classmethod
    def example(cls) -> Self:
        return cls(("square_distance", "charge_product", "bessel"), num_basis=4, cutoff=4.0)

    def forward(self, data: Data, graph: Graph) -> Tensor | None:
        parts = [self._part(name, data, graph) for name in self.inputs]
        return torch.cat(parts, dim=-1) if parts else None

    def _part(self, name: str, data: Data, graph: Graph) -> Tensor:
        if name == "square_distance":
            return graph.vectors.square().sum(-1, keepdim=True)
        if name == "charge_product":
            charge = _columns(_required(data, "charge", name), 1, "charge")
            return kernels.gather(charge, graph.receiver) * kernels.gather(charge, graph.sender)
        if name == "bessel" and self.basis is not None:
            basis: Tensor = self.basis(graph.lengths)
            return basis
        if graph.edge_attr is None:
            raise TensorError("The input 'edge_attr' needs data.edge_attr with data.edge_index, which is missing.")
        return _columns(graph.edge_attr, self.edge_attr_width, "edge_attr")
