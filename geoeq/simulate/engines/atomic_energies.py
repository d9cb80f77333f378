"""Trace the energies of atoms, with their share of the uncertainty, and measure how far they reach."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, fx, nn
from torch_geometric.data import Data

from geoeq.data.structures import model_inputs
from geoeq.derivatives import derivatives, gradients_enabled
from geoeq.graph import Graph
from geoeq.models import Ensemble, LastLayer, Model, WithPriors
from geoeq.models.heads.head import Head
from geoeq.models.wrappers.last_layer import last_layer_head
from geoeq.simulate.engines.graph_inputs import GraphInputs, as_data, graph_inputs
from geoeq.simulate.engines.tracing import whole_graph

__all__ = ["interaction_range", "trace_atomic_energies"]

#: Number of atoms of the chain that measures the range, and the distance of neighbours in it in cutoffs: each atom sees
#: only the next one.
_ATOMS, _SPACING = 24, 0.6


def trace_atomic_energies(model: Model, example: GraphInputs, spreads: bool = False) -> fx.GraphModule:
    """Trace the energies [N] of atoms, in float64 or the dtype of the model; the graph is differentiable.

    The uncertainty of an energy is the norm of a sum over atoms of vectors that state how their energies vary
    together: ``root · features`` of a last layer, and the deviations of the members of an ensemble from their mean.

    Args:
        model: model without ``Forces``. Its energy must be a sum over atoms, which is not checked.
        example: structures to trace with, as for ``trace``.
        spreads: whether to return those vectors too, [N, W]; W is 0 if the model has no uncertainty.

    Raises:
        InputError: the graph depends on a size or a value, or contains an operator that is not part of PyTorch.
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
        outputs = [member(data) for member in self.members]
        energies, spreads = outputs[0]
        if len(outputs) > 1:
            each = torch.stack([energy for energy, _ in outputs], dim=1)  # [N, M]
            energies = each.mean(1)
            spreads = self.factor / (len(outputs) - 1) ** 0.5 * (each - energies.unsqueeze(1))
        return (energies, spreads) if self.spreads else energies


class _Member(nn.Module):
    """Model whose heads treat each atom as a structure: energies [N], and the spread [N, W] of its last layer."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        self.root: Tensor | None = None
        with_priors = self.model if isinstance(self.model, WithPriors) else None
        network = self.model if with_priors is None else with_priors.model
        if isinstance(network, LastLayer):
            inner: Model = network.model  # type: ignore[assignment]
            if network.target == "energy":
                self.root = network.root
                last_layer_head(inner, "energy").with_last_layer = True
            if with_priors is None:
                self.model = inner
            else:
                with_priors.model = inner
        for index, head in enumerate(self.model.heads):
            self.model.heads[index] = _EachAtom(head)  # type: ignore[arg-type]

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
    """Return a graph in which each atom is a structure."""
    atoms = torch.arange(graph.num_nodes + 1, device=graph.batch.device)
    return replace(graph, batch=atoms[:-1], ptr=atoms, num_graphs=graph.num_nodes)


def interaction_range(atomic_energies: Callable[..., Tensor], model: Model) -> float:
    """Measure the interaction range in Å: the cutoff times the number of edges over which an atom's energy depends.

    The energy of the first atom of a chain is differentiated by the positions of all atoms, with the trained weights.
    If the derivative reaches the end of the chain, the range is infinite, as for a model that sees whole structures.

    Args:
        atomic_energies: function from the tensors of ``GraphInputs`` to energies [N].
        model: model that has the cutoff and the elements.
    """
    cutoff = model.cutoff
    if cutoff is None:
        return math.inf
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(0)
    positions = 0.1 * cutoff * torch.rand(_ATOMS, 3, generator=generator, dtype=torch.float64)
    positions[:, 0] += _SPACING * cutoff * torch.arange(_ATOMS)
    elements = torch.tensor(model.elements or (1, 6, 7, 8, 16))
    chain = model_inputs(elements[torch.arange(_ATOMS) % len(elements)], positions).to(device)
    inputs = graph_inputs(chain, cutoff)
    with gradients_enabled():
        chain.pos = inputs.positions.clone().requires_grad_()
        first = atomic_energies(*inputs._replace(positions=chain.pos))[0]
        (gradient,) = derivatives(first, chain, name="energy of an atom")
    reached = gradient.abs().sum(1).nonzero().squeeze(1)
    edges = int(reached.max()) if len(reached) else 0
    return math.inf if edges == _ATOMS - 1 else edges * cutoff
