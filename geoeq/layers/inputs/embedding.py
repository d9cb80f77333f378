"""Embeddings of the inputs of nodes and edges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self, get_args

import torch
from e3nn import o3
from torch import Tensor, nn
from torch_geometric.data import Data

from geoeq import kernels
from geoeq.errors import InputError, TensorError, check_name, check_positive, check_sizes
from geoeq.fields import NUM_ELEMENTS
from geoeq.geometry.neighbors import edge_lengths as safe_norm
from geoeq.graph import Graph
from geoeq.layers.layer import Group
from geoeq.layers.radial.bases import BesselBasis

__all__ = [
    "EdgeEmbedding",
    "EdgeInput",
    "EndsEmbedding",
    "IrrepsEmbedding",
    "NodeEmbedding",
    "NodeInput",
    "end_numbers",
]


NodeInput = Literal["element", "charge", "speed", "features"]
EdgeInput = Literal["square_distance", "charge_product", "edge_attr", "bessel"]


def _required(data: Data, name: str, needed_by: str) -> Tensor:
    value = getattr(data, name, None)
    if not isinstance(value, Tensor):
        raise TensorError(f"The input '{needed_by}' needs data.{name}, which is missing.")
    return value


def _known(inputs: Sequence[str], known: Sequence[str], kind: str) -> tuple[str, ...]:
    for name in inputs:
        check_name(kind, name, known)
    return tuple(inputs)


def _columns(value: Tensor, width: int, name: str) -> Tensor:
    value = value.reshape(value.shape[0], -1)
    if value.shape[-1] != width:
        raise TensorError(f"data.{name} has {value.shape[-1]} columns; the model expects {width}.")
    return value


class NodeEmbedding(nn.Module):
    """Embedding of the invariant inputs of a node in C channels: a table for the element, a linear map for the rest.

    Args:
        width: number C of channels.
        inputs: any of "element" (``data.z``), "charge" (``data.charge``), "speed" (the length of
            ``data.vel``) and "features" (``data.x``).
        features_width: number of columns of ``data.x``.

    Shapes:
        Returns [N, C].

    Raises:
        InputError: an input is unknown, or there are no inputs, or a number is out of range.
        TensorError: an input is missing from the data, or has the wrong width.
    """

    def __init__(self, width: int, inputs: Sequence[NodeInput] = ("element",), features_width: int = 0) -> None:
        super().__init__()
        check_sizes(self, width=width)
        check_sizes(self, least=0, features_width=features_width)
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
        features = None
        if "features" in self.inputs:
            features = _columns(_required(data, "x", "features"), self.features_width, "x")
        return self.embed(data, features)

    def embed(self, data: Data, features: Tensor | None) -> Tensor:
        """Apply ``forward`` with these features [N, features_width] instead of ``data.x``."""
        parts: list[Tensor] = []
        for name in self.inputs:
            if name == "charge":
                parts.append(_columns(_required(data, "charge", name), 1, "charge"))
            elif name == "speed":
                parts.append(safe_norm(_required(data, "vel", name)).unsqueeze(-1))
        if features is not None:
            parts.append(features)
        x: Tensor | float = 0.0
        if self.element is not None:
            x = self.element(_required(data, "z", "element"))  # [N, C]
        if self.linear is not None:
            x = x + self.linear(torch.cat(parts, dim=-1).to(self.linear.weight.dtype))
        return x  # type: ignore[return-value]  # at least one of the two exists


class IrrepsEmbedding(nn.Module):
    """Embedding of the inputs of a node in features of any irreps: invariants in scalars, vectors in vectors, etc.

    Degrees without inputs are zero. Inputs of degree l > 0 pass through a linear map without bias.

    Args:
        irreps: irreps of the result; scalars (0e) first.
        inputs: invariant inputs, as for ``NodeEmbedding``.
        features_irreps: irreps of ``data.x``, scalars first, if "features" is among the inputs.
        velocity: whether ``data.vel`` is an input, as a vector.
        group: "SE(3)" matches inputs and result by degree only, whatever the parity.

    Shapes:
        Returns [N, irreps.dim].

    Raises:
        InputError: an input is unknown, scalars do not come first, or irreps lack those of an input of degree l > 0.
        TensorError: an input is missing from the data, or has the wrong width.
    """

    def __init__(
        self,
        irreps: o3.Irreps | str,
        inputs: Sequence[NodeInput] = ("element",),
        features_irreps: o3.Irreps | str = "",
        velocity: bool = False,
        group: Group = "E(3)",
    ) -> None:
        super().__init__()
        self.irreps, self.features_irreps = o3.Irreps(irreps), o3.Irreps(features_irreps).simplify()
        for entries in (self.irreps, self.features_irreps):
            if entries.count("0e") and entries[0].ir != o3.Irrep("0e"):
                raise InputError(f"Scalars (0e) come first in the irreps of features; found {entries}.")
        self.velocity = velocity
        self.features_width = self.features_irreps.count("0e")
        self.features_dim = self.features_irreps.dim
        self.scalars = NodeEmbedding(self.irreps.count("0e"), inputs, self.features_width)
        sources = [entry for entry in self.features_irreps if entry.ir != o3.Irrep("0e")]
        sources += [(1, o3.Irrep("1o"))] if velocity else []
        self.slots: list[tuple[int, int, int]] = []  # input channels, output channels, 2 l + 1
        self.sources: list[list[int]] = []  # inputs of each slot
        self.source_dims = [(mul, ir.dim) for mul, ir in sources]
        self.maps = nn.ModuleList()
        unused = set(range(len(sources)))
        for mul, ir in self.irreps:
            if ir == o3.Irrep("0e"):
                continue
            matches = [
                n for n, (_, other) in enumerate(sources) if other == ir or (group == "SE(3)" and other.l == ir.l)
            ]
            channels = sum(sources[n][0] for n in matches)
            unused -= set(matches)
            self.slots.append((channels, mul, ir.dim))
            self.sources.append(matches)
            self.maps.append(nn.Linear(channels, mul, bias=False) if channels else nn.Identity())
        if unused:
            lost = o3.Irreps([sources[n] for n in sorted(unused)])
            raise InputError(f"The inputs {lost} have no place in features of irreps {self.irreps}.")

    @classmethod
    def example(cls) -> Self:
        return cls("8x0e + 4x1o + 2x2e", ("element", "features"), "4x0e", velocity=True)

    def forward(self, data: Data) -> Tensor:
        features, parts = None, []
        if self.features_dim:
            x = _columns(_required(data, "x", "features"), self.features_dim, "x")
            features, rest = x.split([self.features_width, self.features_dim - self.features_width], dim=-1)
            features = features if self.features_width else None
            sizes = [mul * dim for mul, dim in self.source_dims[: len(self.source_dims) - self.velocity]]
            parts = list(rest.split(sizes, dim=-1)) if sizes else []
        if self.velocity:
            parts.append(_required(data, "vel", "velocity"))
        parts = [part.reshape(-1, mul, dim) for part, (mul, dim) in zip(parts, self.source_dims, strict=True)]
        result = [self.scalars.embed(data, features)]  # [N, C]
        num_nodes = result[0].shape[0]
        for sources, (channels, mul, dim), linear in zip(self.sources, self.slots, self.maps, strict=True):
            if channels:
                value = torch.cat([parts[n] for n in sources], dim=1).to(result[0].dtype)  # [N, channels, 2 l + 1]
                mapped: Tensor = linear(value.transpose(1, 2)).transpose(1, 2)
                result.append(mapped.reshape(num_nodes, mul * dim))
            else:
                result.append(result[0].new_zeros(num_nodes, mul * dim))
        return torch.cat(result, dim=-1)


class EdgeEmbedding(nn.Module):
    """Invariant inputs of an edge, concatenated.

    Args:
        inputs: any of "square_distance" (of the input positions), "charge_product" (``q_i q_j``),
            "edge_attr" (``data.edge_attr``) and "bessel" (a Bessel basis of the distance).
        edge_attr_width: number of columns of ``data.edge_attr``.
        num_basis: number of Bessel functions.
        cutoff: cutoff of the Bessel functions in Å.

    Shapes:
        Returns [E, width], or None without inputs. The attribute ``width`` is this number of columns.

    Raises:
        InputError: an input is unknown, or an argument that it needs is missing, or a number is out of range.
        TensorError: an input is missing from the data, or has the wrong width.
    """

    def __init__(
        self,
        inputs: Sequence[EdgeInput] = (),
        edge_attr_width: int = 0,
        num_basis: int = 8,
        cutoff: float | None = None,
    ) -> None:
        super().__init__()
        check_sizes(self, num_basis=num_basis)
        check_sizes(self, least=0, edge_attr_width=edge_attr_width)
        check_positive(self, cutoff=cutoff)
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


def end_numbers(graph: Graph) -> tuple[Tensor, Tensor]:
    """Return the atomic numbers of senders and receivers, [E] each.

    Raises:
        TensorError: the graph has no atomic numbers.
    """
    if graph.numbers is None:
        raise TensorError(
            "The elements at both ends of the edges are needed, but the graph has no atomic numbers (data.z)."
        )
    return kernels.gather(graph.numbers, graph.sender), kernels.gather(graph.numbers, graph.receiver)


class EndsEmbedding(nn.Module):
    """Embeddings of the elements of sender and receiver, concatenated.

    Args:
        width: number C of channels of each embedding.

    Shapes:
        Returns [E, 2 C].

    Raises:
        TensorError: the graph has no atomic numbers.

    Source:
        Liao & Smidt, ICLR 2023, arXiv:2206.11990.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.sender, self.receiver = nn.Embedding(NUM_ELEMENTS, width), nn.Embedding(NUM_ELEMENTS, width)
        for table in (self.sender, self.receiver):
            nn.init.uniform_(table.weight, -0.001, 0.001)

    def forward(self, graph: Graph) -> Tensor:
        sender, receiver = end_numbers(graph)
        return torch.cat([self.sender(sender), self.receiver(receiver)], dim=-1)
