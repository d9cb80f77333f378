"""What is checked: a model, a function of Data or a calculator of ASE, and what it was found to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from e3nn import o3
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from geoeq.fields import field
from geoeq.geometry.groups import Output, Turns

__all__ = ["Candidate", "Outputs"]

Outputs = Callable[[Data], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Candidate:
    """What is checked, with all that the checks need to know of it.

    Attributes:
        name: for the table.
        function: Data to outputs by name, in ``dtype``.
        single: the same in float32; None where it has one precision.
        dtype: of the structures it is given.
        precision: of what it computes: float32 where its outputs have no more digits than that.
        batches: structures to try: molecules, then periodic ones.
        remarks: what was found out about it: elements left out, periodic structures not tried.
        group: which symmetries it claims: "E(3)" all, "SE(3)" no reflections, and so on.
        turns: the coordinate that the rotations of its group leave alone, or all elements of a finite group; None
            where it has all rotations.
        symmetric_to: the error of rotations that it states itself, because it samples on a grid.
        cutoff: in Å, where it is known.
        calculator: whether it is one of ASE.
        complete: whether all atoms of a structure see each other, whatever their distance.
        conservative: whether its forces claim to be minus the derivative of its energy.
        differentiable: whether outputs carry derivatives by the positions.
        module: the network itself in ``dtype``, where there is one.
    """

    name: str
    function: Outputs
    single: Outputs | None
    dtype: torch.dtype
    precision: torch.dtype
    batches: tuple[Batch, ...]
    remarks: tuple[str, ...]
    group: str
    turns: Turns
    symmetric_to: float
    cutoff: float | None
    calculator: bool
    complete: bool
    conservative: bool
    differentiable: bool
    module: nn.Module | None = None

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The outputs."""
        with torch.no_grad():
            return tuple(self.function(self.batches[-1]))

    def with_derivatives(self, data: Data) -> dict[str, Tensor | Output]:
        """All outputs and, where it is differentiable, the derivatives of scalars of graphs by the positions."""
        with torch.no_grad():
            found: dict[str, Tensor | Output] = dict(self.function(data))
        for name in self.scalars if self.differentiable else ():
            found[f"d {name}"] = Output(self.gradients(data, name), "node", o3.Irreps("1o"))
        return found

    @property
    def scalars(self) -> tuple[str, ...]:
        """The outputs that are numbers for a graph."""
        return tuple(name for name in self.names if (field(name).level, field(name).irreps) == ("graph", "0e"))

    @property
    def molecules(self) -> Batch | None:
        """The structures without periodic directions."""
        return next((batch for batch in self.batches if "cell" not in batch), None)

    @property
    def crystals(self) -> Batch | None:
        """The periodic structures."""
        return next((batch for batch in self.batches if "cell" in batch and bool(batch.pbc.all())), None)

    def gradients(self, data: Data, name: str) -> Tensor:
        """Derivative of the sum of an output by the positions, [N, 3]."""
        moved = data.clone()
        moved.pos = data.pos.detach().clone().requires_grad_()
        with torch.enable_grad():
            value = self.function(moved)[name].sum()
            if not value.requires_grad:  # constant
                return torch.zeros_like(data.pos)
            (gradient,) = torch.autograd.grad(value, moved.pos, allow_unused=True)
        return torch.zeros_like(data.pos) if gradient is None else gradient

    def energy_and_forces(self, data: Data) -> dict[str, Tensor]:
        """Energies, and the forces that it gives or, where it gives none, those by differentiation."""
        if "forces" in self.names:
            with torch.no_grad():
                return dict(self.function(data))
        moved = data.clone()
        moved.pos = data.pos.detach().clone().requires_grad_()
        with torch.enable_grad():
            energy = self.function(moved)["energy"]
            (gradient,) = torch.autograd.grad(energy.sum(), moved.pos)
        return {"energy": energy.detach(), "forces": -gradient}
