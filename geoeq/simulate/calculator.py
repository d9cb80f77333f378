"""A model as a calculator of ASE: relaxation, molecular dynamics, phonons and whatever else ASE does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import Data

from geoeq.data.structures import Structure, to_data
from geoeq.errors import InputError
from geoeq.models import Model, hessian
from geoeq.simulate.neighbor_list import NeighborList
from geoeq.simulate.potential import as_potential

__all__ = ["GeoeqCalculator"]

#: property of ASE, or one that it does not know -> field.
_PROPERTIES = {
    "energy": "energy",
    "free_energy": "energy",
    "energies": "atomic_energies",
    "forces": "forces",
    "stress": "stress",
    "dipole": "dipole",
    "charges": "charges",
    "energy_uncertainty": "energy_uncertainty",
    "forces_uncertainty": "forces_uncertainty",
}


class GeoeqCalculator(Calculator):
    """A potential for ASE: ``atoms.calc = GeoeqCalculator("runs/rmd17-egnn")``.

    It offers what the model gives: energy (and, as there are no electrons, the same free energy), forces, stress,
    dipole, charges and energies of atoms. A model without forces of its own gets those that are derivatives of its
    energy, and a stress where it has a cutoff. Positions are float64 whatever the dtype of the model
    (``Model.forward``).

    The net charge of a structure, for a model that conserves charges, is ``atoms.info["total_charge"]``; 0 without it.

    What knows its uncertainty (``Ensemble``, ``LastLayer``) adds ``results["energy_uncertainty"]`` in eV and, of an
    ensemble, ``results["forces_uncertainty"]`` [N] in eV/Å, a norm for each atom.

    A stress is that of a periodic structure whose cell has a volume; of a molecule or a layer without a third cell
    vector ASE's ``PropertyNotImplementedError`` says that there is none. The volume of a slab includes its vacuum.

    Args:
        model: a run of ``geoeq train``, a checkpoint, or a Model.
        device: "auto" (a GPU where there is one), "cpu", "cuda" ...
        dtype: of the model; None for that of the checkpoint.
        skin: edges are found so much beyond the cutoff, in Å, and again when an atom may have come nearer.
        stress: give a stress; None where the model has a cutoff.
        trust: import and run classes that are not part of geoeq, where the checkpoint names any.

    Attributes:
        model: what is evaluated.
        conservative: whether the forces are derivatives of the energy. Where not, total energies drift.
        neighbor_list: the edges that are kept, None for a model of complete graphs.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        InputError: the model gives nothing that ASE knows. On evaluation: the structure cannot be what was meant
            (``geoeq.checks``: a value that is not finite, coincident atoms, unknown elements, no atoms, a bad cell).
    """

    def __init__(
        self,
        model: str | Path | Model,
        device: str | torch.device = "auto",
        *,
        dtype: torch.dtype | None = None,
        skin: float = 0.5,
        stress: bool | None = None,
        trust: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.model = loaded = as_potential(model, device, dtype, stress, trust)
        self.conservative = loaded.conservative
        self.device = next(loaded.parameters()).device
        offered = [name for name, output in _PROPERTIES.items() if output in loaded.fields]
        if not offered:
            given = ", ".join(loaded.fields) or "nothing"
            raise InputError(f"The model gives {given}, and none of what ASE asks for: {', '.join(_PROPERTIES)}.")
        self.implemented_properties = offered
        self.neighbor_list = None if loaded.cutoff is None else NeighborList(loaded.cutoff, skin)

    def check_state(self, atoms: Atoms, tol: float = 0.0) -> list[str]:
        """What changed since the last evaluation, to the last bit (dynamics asks three times a step)."""
        before: Any = self.atoms
        if before is None:
            return list(all_changes)
        changes = [name for name in all_changes if not _same(before, atoms, name)]
        return changes + ["total_charge"] * (before.info.get("total_charge") != atoms.info.get("total_charge"))

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] | None = None,
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Compute all that the model gives for these atoms."""
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        self.results = {}
        structure: Any = self.atoms
        data = self.data(structure)
        try:
            with torch.no_grad():
                outputs = self.model(data)
        except torch.OutOfMemoryError as error:
            raise InputError(
                f"{len(structure)} atoms do not fit into the memory of {self.device}: {str(error).splitlines()[0]} "
                "Take fewer atoms, a model in float32, or another device."
            ) from error
        for name in self.implemented_properties:
            output = outputs.get(_PROPERTIES[name])
            if output is not None:
                self.results[name] = _as_ase(name, output)

    def hessian(self, atoms: Atoms, chunk_size: int | None = None) -> NDArray[np.float64]:
        """Second derivatives of the energy by the positions, such as ``ase.vibrations.VibrationsData`` takes them.

        Args:
            atoms: the structure.
            chunk_size: see ``geoeq.models.hessian``.

        Shapes:
            Returns [3 N, 3 N], eV/Å^2.
        """
        found = hessian(self.model, self.data(atoms), chunk_size=chunk_size)
        array: NDArray[np.float64] = found.cpu().numpy().reshape(3 * len(atoms), 3 * len(atoms))
        return array

    def data(self, atoms: Atoms) -> Data:
        """A structure as the model takes it, with its edges."""
        data = to_data(Structure(atoms, "atoms"), torch.float64, periodic=bool(atoms.pbc.any())).to(self.device)
        if "total_charge" in atoms.info:
            data.total_charge = data.pos.new_full((1,), float(atoms.info["total_charge"]))
        finite = np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()
        if self.neighbor_list is not None and len(atoms) and finite:
            edges = self.neighbor_list.edges(data.pos, data.get("cell"), data.get("pbc"))
            data.edge_index = torch.stack([edges.sender, edges.receiver])
            data.edge_cutoff = torch.full((1,), self.neighbor_list.cutoff, dtype=torch.float64, device=self.device)
            if edges.shifts is not None:
                data.edge_shifts = edges.shifts
        return data


def _same(first: Atoms, second: Atoms, name: str) -> bool:
    one, other = (
        getattr(atoms, name) if name in ("cell", "pbc") else atoms.arrays.get(name) for atoms in (first, second)
    )
    return one is other or (one is not None and other is not None and np.array_equal(one, other))


def _as_ase(name: str, value: Tensor) -> Any:
    array = value.detach().double().cpu().numpy()
    if name == "stress":
        return np.asarray(full_3x3_to_voigt_6_stress(array[0]))
    if name in ("energy", "free_energy", "energy_uncertainty"):
        return float(array[0])
    return array[0] if name == "dipole" else array
