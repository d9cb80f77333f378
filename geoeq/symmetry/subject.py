"""Subject of the checks: a model, function or ASE calculator with its known properties."""

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

__all__ = ["Outputs", "Subject"]

Outputs = Callable[[Data], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Subject:
    """Subject of the checks, with everything that the checks need to know about it.

    Attributes:
        name: name for the table.
        function: function from Data to outputs by name, in ``dtype``.
        single: the same function in float32; None if it has only one precision.
        dtype: dtype of its input structures.
        precision: precision of its computation: float32 if its outputs have no more digits than that.
        batches: test structures: molecules, then periodic ones.
        remarks: remarks for the report, such as omitted elements.
        group: symmetries that it claims: "E(3)" all, "SE(3)" no reflections, and so on.
        turns: coordinate that the rotations of its group leave unchanged, or all elements of a finite group; None if it
            has all rotations.
        symmetric_to: error of rotations that it cannot avoid because it samples the sphere, see ``stated_error``.
        cutoff: cutoff in Å, if known.
        calculator: whether it is an ASE calculator.
        complete: whether all atoms of a structure interact, whatever their distance.
        conservative: whether its forces claim to be minus the derivative of its energy.
        differentiable: whether its outputs can be differentiated by the positions.
        module: the network in ``dtype``, if there is one.
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
        """Names of the outputs."""
        with torch.no_grad():
            return tuple(self.function(self.batches[-1]))

    def with_derivatives(self, data: Data) -> dict[str, Tensor | Output]:
        """Compute all outputs and, if possible, the derivatives of graph-level scalars by the positions."""
        with torch.no_grad():
            outputs: dict[str, Tensor | Output] = dict(self.function(data))
        for name in self.scalars if self.differentiable else ():
            outputs[f"d {name}"] = Output(self.gradients(data, name), "node", o3.Irreps("1o"))
        return outputs

    @property
    def scalars(self) -> tuple[str, ...]:
        """Names of the graph-level scalars."""
        return tuple(name for name in self.names if (field(name).level, field(name).irreps) == ("graph", "0e"))

    @property
    def molecules(self) -> Batch | None:
        """Structures without periodic directions."""
        return next((batch for batch in self.batches if "cell" not in batch), None)

    @property
    def crystals(self) -> Batch | None:
        """Periodic structures."""
        return next((batch for batch in self.batches if "cell" in batch and bool(batch.pbc.all())), None)

    def gradients(self, data: Data, name: str) -> Tensor:
        """Compute the derivative of the sum of an output by the positions, [N, 3]."""
        moved = data.clone()
        moved.pos = data.pos.detach().clone().requires_grad_()
        with torch.enable_grad():
            value = self.function(moved)[name].sum()
            if not value.requires_grad:  # constant
                return torch.zeros_like(data.pos)
            (gradient,) = torch.autograd.grad(value, moved.pos, allow_unused=True)
        return torch.zeros_like(data.pos) if gradient is None else gradient

    def energy_and_forces(self, data: Data) -> dict[str, Tensor]:
        """Compute energies and forces; forces are differentiated if they are not an output."""
        if "forces" in self.names:
            with torch.no_grad():
                return dict(self.function(data))
        moved = data.clone()
        moved.pos = data.pos.detach().clone().requires_grad_()
        with torch.enable_grad():
            energy = self.function(moved)["energy"]
            (gradient,) = torch.autograd.grad(energy.sum(), moved.pos)
        return {"energy": energy.detach(), "forces": -gradient}
