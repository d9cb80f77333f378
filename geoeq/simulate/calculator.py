"""ASE calculator for trained models: relaxation, molecular dynamics, phonons and everything else ASE does."""

from __future__ import annotations

import threading
import warnings
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

from geoeq.data.molecules.net_charge import net_charge
from geoeq.data.structures import to_data
from geoeq.errors import InputError
from geoeq.models import Model, hessian
from geoeq.models.charge_use import ignored_charge
from geoeq.simulate.neighbor_list import NeighborList
from geoeq.simulate.potential import as_potential, describe_potential
from geoeq.trust import Trust

__all__ = ["GeoeqCalculator"]

#: ASE property, or a property of ours that ASE does not define -> field.
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
    """ASE calculator of a trained model: ``GeoeqCalculator("runs/rmd17-egnn")``, ``GeoeqCalculator("7net-0")``.

    It offers the properties that the model predicts: energy (and, as there are no electrons, the same value as free
    energy), forces, stress, dipole, charges and atomic energies. If the model predicts no forces, they are computed as
    derivatives of its energy, together with a stress if the model has a cutoff. Positions are float64 whatever the
    dtype of the model (``Model.forward``).

    For models that conserve charge, ``atoms.info["total_charge"]`` (or ``"charge"``, ``"net_charge"``,
    ``"molecular_charge"``) is the net charge of the structure (default 0); other models warn that they ignore it.

    Models with an uncertainty (``Ensemble``, ``LastLayer``) add ``results["energy_uncertainty"]`` in eV and, for
    ensembles, ``results["forces_uncertainty"]`` [N] in eV/Å, one norm per atom.

    Only periodic structures whose cell has a volume have a stress; for a molecule, or a layer without a third cell
    vector, ASE raises ``PropertyNotImplementedError``. The volume of a slab includes its vacuum.

    Threads may share a calculator: ``atoms.get_forces()`` and the like wait for each other. ``results`` belongs to the
    last structure of any thread, and each change of the structure rebuilds the neighbour list; one calculator per
    thread is faster.

    ``parameters``, which ASE databases record, has the title of the model, the checksum of its weights, its dtype, the
    path of the checkpoint if there is one, and the version of geoeq.

    Args:
        model: folder of a ``geoeq train`` run, a checkpoint, name of a fetched published potential, or a Model.
        device: "auto" (a GPU if available), "cpu", "cuda" ...
        dtype: dtype of the model; None keeps the dtype of the checkpoint.
        skin: Verlet skin in Å; the neighbour list is rebuilt once an atom may have crossed it.
        stress: whether to compute the stress; None computes it if the model has a cutoff.
        trust: modules outside geoeq whose classes the checkpoint may name, as for ``load_checkpoint``.

    Attributes:
        model: the model that is evaluated.
        conservative: whether the forces are derivatives of the energy. If not, total energies drift.
        neighbor_list: the neighbour list; None for models of complete graphs.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        InputError: the model predicts no property that ASE knows. On evaluation: the structure is invalid
            (``geoeq.checks``: a non-finite value, coincident atoms, unknown elements, no atoms, a bad cell).
    """

    def __init__(
        self,
        model: str | Path | Model,
        device: str | torch.device = "auto",
        *,
        dtype: torch.dtype | None = None,
        skin: float = 0.5,
        stress: bool | None = None,
        trust: Trust = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.model = loaded = as_potential(model, device, dtype, stress, trust)
        self.conservative = loaded.conservative
        self.device = next(loaded.parameters()).device
        offered = [name for name, output in _PROPERTIES.items() if output in loaded.fields]
        if not offered:
            outputs = ", ".join(loaded.fields) or "nothing"
            raise InputError(f"The model predicts {outputs}; ASE needs one of: {', '.join(_PROPERTIES)}.")
        self.implemented_properties = offered
        self._charge_is_checked = False
        self.neighbor_list = None if loaded.cutoff is None else NeighborList(loaded.cutoff, skin)
        self.parameters.update(describe_potential(model, loaded))
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()

    def check_state(self, atoms: Atoms, tol: float = 0.0) -> list[str]:
        """Return what changed since the last evaluation, compared bit by bit (dynamics asks three times per step)."""
        before: Any = self.atoms
        if before is None:
            return list(all_changes)
        changes = [name for name in all_changes if not _same(before, atoms, name)]
        return changes + ["total_charge"] * (net_charge(before.info) != net_charge(atoms.info))

    def get_property(self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True) -> Any:
        """Return a property as ASE does, for one thread at a time."""
        with self._lock:
            return super().get_property(name, atoms, allow_calculation)  # type: ignore[no-untyped-call]

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] | None = None,
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Compute all properties that the model predicts for these atoms."""
        with self._lock:
            super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
            self.results = {}
            outputs = self._outputs(self.atoms)
            for name in self.implemented_properties:
                output = outputs.get(_PROPERTIES[name])
                if output is not None:
                    self.results[name] = _as_ase(name, output)

    def _outputs(self, atoms: Any) -> dict[str, Tensor]:
        data = self.data(atoms)
        try:
            with torch.no_grad():
                outputs: dict[str, Tensor] = self.model(data)
        except torch.OutOfMemoryError as error:
            raise InputError(
                f"{len(atoms)} atoms do not fit into the memory of {self.device}: {str(error).splitlines()[0]} "
                "Use fewer atoms, a float32 model or another device."
            ) from error
        if not self._charge_is_checked and data.get("total_charge"):
            self._charge_is_checked = True
            note = ignored_charge(self.model, data)
            if note is not None:
                warnings.warn(f"{atoms.get_chemical_formula()}: {note}", stacklevel=3)
        return outputs

    def hessian(self, atoms: Atoms, chunk_size: int | None = None) -> NDArray[np.float64]:
        """Compute the second derivatives of the energy by the positions, for ``ase.vibrations.VibrationsData``.

        Args:
            atoms: the structure.
            chunk_size: number of rows per chunk; see ``geoeq.models.hessian``.

        Shapes:
            Returns [3 N, 3 N], eV/Å^2.
        """
        with self._lock:
            blocks = hessian(self.model, self.data(atoms), chunk_size=chunk_size)
        array: NDArray[np.float64] = blocks.cpu().numpy().reshape(3 * len(atoms), 3 * len(atoms))
        return array

    def get_hessian(self, atoms: Atoms) -> NDArray[np.float64]:
        """Compute the same as ``hessian``, under the name that other calculators use."""
        return self.hessian(atoms)

    def data(self, atoms: Atoms) -> Data:
        """Convert a structure to model inputs, with edges from the neighbour list."""
        data = to_data(atoms, torch.float64).to(self.device)
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
