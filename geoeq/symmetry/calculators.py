"""Convert ASE calculators to functions of Data, and functions of Data to ASE calculators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from geoeq.data.structures import to_atoms

__all__ = ["from_calculator", "is_calculator", "to_calculator"]

Outputs = Callable[[Data], Mapping[str, Tensor]]

#: ASE property -> field.
_PROPERTIES = {"energy": "energy", "forces": "forces", "stress": "stress", "dipole": "dipole", "charges": "charges"}


def is_calculator(candidate: object) -> bool:
    """Return whether an object is an ASE calculator."""
    return hasattr(candidate, "get_property") and hasattr(candidate, "implemented_properties")


def from_calculator(calculator: Any) -> Outputs:
    """Convert an ASE calculator to a function of Data that returns its energy, forces, stress, dipole and charges.

    The calculator is reset for each structure. The stress is computed only if all directions are periodic.
    """
    offered = [name for name in _PROPERTIES if name in calculator.implemented_properties]

    def outputs(data: Data) -> dict[str, Tensor]:
        parts: dict[str, list[Tensor]] = {}
        for graph in data.to_data_list():
            atoms = to_atoms(graph)
            calculator.reset()
            atoms.calc = calculator
            for name in offered:
                if name == "stress":
                    if not atoms.pbc.all():
                        continue
                    value = atoms.get_stress(voigt=False)[None]
                else:
                    value = np.atleast_1d(np.asarray(calculator.get_property(name, atoms), dtype=np.float64))
                    value = value[None] if name == "dipole" else value
                parts.setdefault(_PROPERTIES[name], []).append(torch.as_tensor(value.copy(), dtype=data.pos.dtype))
        return {name: torch.cat(values) for name, values in parts.items() if len(values)}

    return outputs


def to_calculator(outputs: Outputs, like: Data) -> Any:
    """Convert a function of Data to an ASE calculator for energy and forces.

    Args:
        outputs: function that returns "energy" and "forces".
        like: structure that provides all other inputs (charges, features ...) for each new set of positions.
    """
    from ase.calculators.calculator import Calculator, all_changes

    class FunctionCalculator(Calculator):
        """ASE calculator that evaluates the function at the positions of the atoms."""

        implemented_properties = ["energy", "forces"]  # noqa: RUF012  # as ASE declares it

        def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
            super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
            moved = like.clone()
            moved.pos = torch.as_tensor(atoms.positions.copy(), dtype=like.pos.dtype)
            values = outputs(Batch.from_data_list([moved]))
            self.results = {
                "energy": float(values["energy"].detach().reshape(-1)[0]),
                "forces": values["forces"].detach().double().numpy(),
            }

    return FunctionCalculator()  # type: ignore[no-untyped-call]
