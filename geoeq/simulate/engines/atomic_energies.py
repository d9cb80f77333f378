"""The energies of atoms, and what they add to an uncertainty, as one graph of PyTorch's operators."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, fx, nn
from torch_geometric.data import Data

from geoeq.graph import Graph
from geoeq.models import Ensemble, LastLayer, Model, WithPriors
from geoeq.models.heads.head import Head
from geoeq.models.wrappers.last_layer import last_layer_head
from geoeq.simulate.engines.graph_inputs import GraphInputs
from geoeq.simulate.engines.tracing import as_data, whole_graph

__all__ = ["trace_atomic_energies"]


def trace_atomic_energies(model: Model, example: GraphInputs, spreads: bool = False) -> fx.GraphModule:
    """The graph of the energies [N] of atoms, in float64 or the dtype of the model; derivatives go through it.

    The uncertainty of an energy is a norm of a sum over atoms, of vectors that say how their energies would move
    together: ``root · features`` of a last layer, and what the members of an ensemble differ by.

    Args:
        model: without ``Forces``. Its energy must be a sum over atoms; whether it is, is not looked at.
        example: as for ``trace``.
        spreads: give those vectors too, [N, W]; W is 0 where the model does not know its uncertainty.

    Raises:
        InputError: the graph depends on a size or a value, or holds an operator that is not one of PyTorch.
    """
    return whole_graph(_AtomicEnergies(model, spreads), model.title, example)


class _AtomicEnergies(nn.Module):
    def __init__(self, model: Model, spreads: bool) -> None:
        super().__init__()
        members = model.models if isinstance(model, Ensemble) else [model]
        self.members = nn.ModuleList(_Member(member) for member in members)
        self.factor = model.factors.get("energy", 1.0) if isinstance(model, Ensemble) else 1.0
        self.spreads = spreads

    def forward(
        self, positions: Tensor, numbers: Tensor, batch: Tensor, cells: Tensor, edges: Tensor, shifts: Tensor
    ) -> Tensor | tuple[Tensor, Tensor]:
        data = as_data(GraphInputs(positions, numbers, batch, cells, edges, shifts))
        given = [member(data) for member in self.members]
        energies, spreads = given[0]
        if len(given) > 1:
            each = torch.stack([energy for energy, _ in given], dim=1)  # [N, M]
            energies = each.mean(1)
            spreads = self.factor / (len(given) - 1) ** 0.5 * (each - energies.unsqueeze(1))
        return (energies, spreads) if self.spreads else energies


class _Member(nn.Module):
    """A model whose heads take each atom for a structure: energies [N], and the spread [N, W] of its last layer."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        self.root: Tensor | None = None
        around = self.model if isinstance(self.model, WithPriors) else None
        certain = self.model if around is None else around.model
        if isinstance(certain, LastLayer):
            inner: Model = certain.model  # type: ignore[assignment]
            if certain.target == "energy":
                self.root = certain.root
                last_layer_head(inner, "energy").with_last_layer = True
            if around is None:
                self.model = inner
            else:
                around.model = inner
        for place, head in enumerate(self.model.heads):
            self.model.heads[place] = _EachAtom(head)  # type: ignore[arg-type]

    def forward(self, data: Data) -> tuple[Tensor, Tensor]:
        network: nn.Module = self.model.model if isinstance(self.model, WithPriors) else self.model
        outputs: dict[str, Tensor] = dict(network(data))
        energies = outputs["energy"]
        spreads = energies.new_zeros(energies.shape[0], 0) if self.root is None else self._spreads(outputs)
        if isinstance(self.model, WithPriors):
            energies = energies + self.model.atomic(data, outputs)
        return energies, spreads

    def _spreads(self, outputs: dict[str, Tensor]) -> Tensor:
        return outputs["last_layer"].double() @ self.root.mT  # type: ignore[union-attr]


class _EachAtom(nn.Module):
    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head
        self.with_last_layer = head.with_last_layer

    def forward(self, x: Tensor, graph: Graph) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = self.head(x, _apart(graph))
        return outputs

    def last_features(self, x: Tensor, graph: Graph) -> Tensor:
        return self.head.last_features(x, _apart(graph))


def _apart(graph: Graph) -> Graph:
    """Each atom a structure of its own."""
    atoms = torch.arange(graph.num_nodes + 1, device=graph.batch.device)
    return replace(graph, batch=atoms[:-1], ptr=atoms, num_graphs=graph.num_nodes)
