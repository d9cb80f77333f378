"""Heads for invariants: a scalar of each graph, or one or several of each atom."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, Self

import torch
from e3nn import o3
from torch import Tensor, nn

from geoeq import kernels
from geoeq.errors import InputError, TensorError, check_sizes
from geoeq.fields import NUM_ELEMENTS, field
from geoeq.graph import Graph
from geoeq.models.heads.head import Head, checked_name, num_scalars, two_layers
from geoeq.models.training_set import Mean, RootMeanSquare, TrainingSet, fit_references, in_parts

__all__ = ["GraphScalar", "NodeFeatures", "NodeScalar", "linear_weights", "with_one"]

#: Components of forces are clipped at this multiple of their mean size: larger ones stem from atoms that are too close.
_CLIP = 10.0


class GraphScalar(Head):
    """A scalar of each graph: the sum or mean over atoms of a network of their scalars.

    ``out = Σ_atoms (reference[z] + scale · f(x))`` for a sum and ``shift + scale · mean f(x)`` for a mean.
    References, shift and scale are fitted to the training set and stored; if the energy comes with forces, the scale
    is their root mean square, with components clipped at ten times their mean size. References and sums are float64
    whatever the dtype of the model, as total energies have more digits than float32 holds.

    Args:
        name: a graph-level scalar of ``geoeq.fields``.
        reduce: "sum" or "mean"; by default a sum for extensive quantities.
        after_pooling: apply a second network to the pooled features, as EGNN does on QM9; a sum is then no longer
            extensive.
        atomic: also output "atomic_energies", the contributions of the atoms to a sum called "energy".

    Shapes:
        Returns [G], in float64 for a sum over atoms; atomic_energies: [N], float64.

    Raises:
        InputError: an option is unknown, or atomic energies are requested for something other than a sum of energies.
    """

    references: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        name: str,
        reduce: Literal["sum", "mean"] | None = None,
        after_pooling: bool = False,
        atomic: bool = False,
    ) -> None:
        super().__init__()
        if reduce not in (None, "sum", "mean"):
            raise InputError(f"reduce must be 'sum' or 'mean', not {reduce!r}.")
        self.name = checked_name(name, "graph", "0e")
        self.reduce = reduce or ("sum" if field(name).extensive else "mean")
        if atomic and (name != "energy" or self.reduce != "sum" or after_pooling):
            raise InputError(
                "atomic_energies are the parts of a sum over atoms called 'energy': leave out atomic, or use "
                "GraphScalar('energy', atomic=True) without reduce='mean' and after_pooling."
            )
        self.names = (name, "atomic_energies") if atomic else (name,)
        self.after_pooling, self.atomic = after_pooling, atomic
        self.register_buffer("references", torch.zeros(NUM_ELEMENTS, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("shift", torch.zeros(()))

    def make(self, irreps: o3.Irreps) -> None:
        self.network = two_layers(self, self.width if self.after_pooling else 1)
        self.pooled = two_layers(self, 1) if self.after_pooling else None

    def fit(self, data: TrainingSet) -> None:
        fitted = fit_references(data, self.name, per_element=field(self.name).extensive)
        self.references.copy_(fitted.references)
        self.shift.copy_(fitted.shift)
        spread = fitted.spread / fitted.mean_atoms**0.5 if self.reduce == "sum" else fitted.spread
        self.scale.copy_(torch.as_tensor((_typical_force(data) if self.name == "energy" else 0.0) or spread))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        exact = self.references  # stays float64 when the dtype of the model changes
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.references = exact.to(self.references.device)
        return self

    def last_features(self, x: Tensor, graph: Graph) -> Tensor:
        """Return the input of the last linear map: pooled over atoms, or that of the network after pooling."""
        if self.pooled is None:
            return self._reduced(self.last_of_atoms(x).double(), graph)
        return with_one(self.pooled[:-1](self._reduced(self.network(self.scalars(x)), graph)))

    def last_of_atoms(self, x: Tensor) -> Tensor:
        """Return the contribution [N, W] of each atom to the pooled features."""
        return with_one(self.network[:-1](self.scalars(x)))

    def last_weights(self) -> Tensor:
        """Return the weights of the last linear map of the network, or of the network after pooling."""
        return linear_weights((self.network if self.pooled is None else self.pooled)[-1])  # type: ignore[arg-type]

    def _reduced(self, value: Tensor, graph: Graph) -> Tensor:
        reduce = kernels.segment_sum if self.reduce == "sum" else kernels.segment_mean
        return reduce(value, graph.batch, graph.num_graphs)

    def forward(self, x: Tensor, graph: Graph) -> dict[str, Tensor]:
        value = self.network(self.scalars(x))  # [N, 1 or C]
        atoms = value = value.double() if self.reduce == "sum" and self.pooled is None else value
        value = self._reduced(value, graph)  # [G, 1 or C]
        if self.pooled is not None:
            value = self.pooled(value)
        value = self.scale * value.squeeze(-1) + self.shift  # [G]
        if graph.numbers is not None:
            reference = kernels.gather(self.references, graph.numbers)  # [N]
            value = value + kernels.segment_sum(reference, graph.batch, graph.num_graphs)
        if not self.atomic:
            return {self.name: value}
        atoms = self.scale * atoms.squeeze(-1)  # [N]
        if graph.numbers is not None:
            atoms = atoms + reference
        count = graph.ptr.diff().clamp(min=1)
        return {self.name: value, "atomic_energies": atoms + kernels.gather(self.shift / count, graph.batch)}


class NodeScalar(Head):
    """A scalar of each atom, such as its charge.

    Args:
        name: a node-level scalar of ``geoeq.fields``.
        conserve: only for charges: make their sum over a structure equal ``data.total_charge`` (zero without it), by
            distributing the excess of the network's charges equally over its atoms.

    Shapes:
        ``data.total_charge``: [G] e. Returns [N].

    Raises:
        InputError: ``conserve`` is set for something other than charges.
    """

    def __init__(self, name: str, conserve: bool = False) -> None:
        super().__init__()
        self.name = checked_name(name, "node", "0e")
        if conserve and name != "charges":
            raise InputError(f"Only the sum of charges is known beforehand, not that of {name}: leave out conserve.")
        self.names = (name,)
        self.conserve = conserve

    def make(self, irreps: o3.Irreps) -> None:
        self.network = two_layers(self, 1)

    def forward(self, x: Tensor, graph: Graph) -> dict[str, Tensor]:
        value = self.network(self.scalars(x)).squeeze(-1)  # [N]
        return {self.name: _conserved(value, graph) if self.conserve else value}


class NodeFeatures(Head):
    """Invariant features of each node, from a linear map.

    Args:
        width_out: number of features.
        name: a node-level scalar of ``geoeq.fields``.

    Shapes:
        Returns [N, width_out].

    Raises:
        InputError: a number is out of range.
    """

    def __init__(self, width_out: int, name: str = "features") -> None:
        super().__init__()
        check_sizes(self, width_out=width_out)
        self.name = checked_name(name, "node", "0e")
        self.names = (name,)
        self.width_out = width_out

    def make(self, irreps: o3.Irreps) -> None:
        self.linear = nn.Linear(num_scalars(self), self.width_out)

    def forward(self, x: Tensor, graph: Graph) -> dict[str, Tensor]:
        return {self.name: self.linear(self.scalars(x))}


def _typical_force(data: TrainingSet) -> float:
    """Return the root mean square of components of forces, clipped at ten times their mean size; 0 without forces."""

    def sizes() -> Iterator[Tensor]:
        every = (getattr(part, "forces", None) for part in in_parts(data))
        return (forces.detach().double().abs() for forces in every if isinstance(forces, Tensor))

    mean, spread = Mean(), RootMeanSquare()
    for values in sizes():
        mean.add(values)
    for values in sizes():
        spread.add(values.clamp(max=_CLIP * mean.value))
    return spread.value


def with_one(features: Tensor) -> Tensor:
    """Append to features [K, W] the 1 that a bias is multiplied by, [K, W + 1]."""
    return torch.cat([features, torch.ones_like(features[:, :1])], dim=1)


def linear_weights(last: nn.Linear) -> Tensor:
    """Return the weights of a linear map to one number, and its bias if it has one, [W or W + 1]."""
    weights = last.weight.flatten()
    return weights if last.bias is None else torch.cat([weights, last.bias])


def _conserved(charges: Tensor, graph: Graph) -> Tensor:
    """Shift charges [N] so that their sums are the net charges of the structures."""
    excess = kernels.segment_sum(charges, graph.batch, graph.num_graphs)  # [G]
    if graph.total_charge is not None:
        if graph.total_charge.numel() != graph.num_graphs:
            raise TensorError(
                f"total_charge has shape {list(graph.total_charge.shape)}: it must be [{graph.num_graphs}], a net "
                "charge in e for each structure."
            )
        excess = excess - graph.total_charge.reshape(-1).to(excess)
    count = graph.ptr.diff().clamp(min=1)
    return charges - kernels.gather(excess / count, graph.batch)
