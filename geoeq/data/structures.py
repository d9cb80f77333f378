"""Structures from files and SMILES, and their conversion to model inputs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from geoeq.data.containers.ase_source import cause
from geoeq.data.formats.ase_frames import read_frames
from geoeq.data.molecules.conformers import embed_smiles
from geoeq.data.molecules.net_charge import net_charge
from geoeq.data.molecules.plausibility import geometry_fault
from geoeq.errors import DataError, InputError, MissingExtraError
from geoeq.files import check_regular

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["Structure", "collate", "from_smiles", "model_inputs", "read_structures", "to_atoms", "to_batch", "to_data"]


@dataclass(frozen=True)
class Structure:
    """Atoms and their origin.

    Attributes:
        atoms: the atoms.
        where: "file.xyz, frame 3" or the SMILES, for messages and tables.
    """

    atoms: Atoms
    where: str


def read_structures(path: str | Path, *, conformers: bool = False) -> list[Structure]:
    """Read all frames of a file.

    Args:
        path: path of the file.
        conformers: whether to generate the geometry of each molecule of an sdf file from its bonds, such as that of a
            drawing, instead of reading it.

    Raises:
        DataError: the file is missing, empty or damaged, or a molecule is a drawing or lacks its hydrogens; the message
            names the file and the frame.
        InputError: a molecule has no conformer.
    """
    path = Path(path)
    check_regular(path)
    if not path.is_file():
        raise DataError(f"There is no file '{path}'.")
    if path.stat().st_size == 0:
        raise DataError(f"{path.name}: the file is empty.")
    frames = read_frames(path, conformers=conformers)
    structures: list[Structure] = []
    while True:
        where = f"{path.name}, frame {len(structures)}"
        try:
            atoms = next(frames)
        except StopIteration:
            break
        except (DataError, InputError, MissingExtraError):
            raise
        except Exception as error:  # ASE's readers raise many types of errors
            raise DataError(f"{where}: it cannot be read{_cause(error)}.") from error
        if len(atoms) == 0:
            raise DataError(f"{where}: it has no atoms.")
        fault = None if atoms.pbc.any() else geometry_fault(atoms.numbers, atoms.positions)
        if fault is not None:
            raise DataError(f"{where} ({atoms.symbols}): {fault}. Give a file with the complete geometry, or a SMILES.")
        structures.append(Structure(atoms, where))
    if not structures:
        raise DataError(f"{path.name}: it contains no structures.")
    return structures


def _cause(error: Exception) -> str:
    """Return the cause of an error of ASE's readers, in words for the common ones."""
    if isinstance(error, UnicodeDecodeError):
        return ": it is not text, as a file of this format would be"
    if type(error).__name__ == "UnknownFileTypeError":
        return " as ASE does not know its format; use the suffix of the format, such as .xyz, .cif or .sdf"
    if isinstance(error, KeyError) and re.fullmatch("[A-Z][a-z]?", str(error.args[0])):
        return f": there is no element '{error.args[0]}'"
    return f" ({cause(error)})"


def from_smiles(smiles: Sequence[str]) -> list[Structure]:
    """Generate a conformer for each SMILES: add hydrogens, embed by ETKDG with a fixed seed, relax with MMFF94.

    The geometry and the order of the atoms depend on the molecule, and not on how its SMILES is written.

    Raises:
        InputError: a SMILES is invalid or has no conformer; the message names it.
        MissingExtraError: the extra "chem" is not installed.
    """
    return [Structure(embed_smiles(text), text) for text in smiles]


def to_data(atoms: Atoms, dtype: torch.dtype, *, periodic: bool | None = None) -> Data:
    """Convert one structure to model inputs; every entry point that takes ASE Atoms converts them here.

    Args:
        atoms: the structure; ``info["total_charge"]``, or another of ``NET_CHARGE_KEYS``, is its net charge.
        dtype: dtype of all floating-point entries.
        periodic: whether to include the cell; None includes it if this structure is periodic.

    Shapes:
        z [N], pos [N, 3] Å, cell [1, 3, 3] Å and pbc [1, 3]; vel [N, 3] in ASE's unit, charge [N] e and
        total_charge [1] e where the structure has them.
    """
    if periodic is None:
        periodic = bool(atoms.pbc.any())
    total_charge = net_charge(atoms.info)

    def tensor(values: Any) -> Tensor:
        return torch.as_tensor(np.asarray(values), dtype=dtype)

    return model_inputs(
        torch.from_numpy(atoms.numbers),
        tensor(atoms.positions),
        cell=tensor(atoms.cell)[None] if periodic else None,
        pbc=torch.from_numpy(atoms.pbc[None].copy()) if periodic else None,
        vel=tensor(atoms.get_velocities()) if atoms.has("momenta") else None,
        charge=tensor(atoms.get_initial_charges()) if atoms.has("initial_charges") else None,
        total_charge=None if total_charge is None else tensor([total_charge]),
    )


def to_batch(structures: Sequence[Atoms], dtype: torch.dtype) -> Batch:
    """Convert structures to one batch of model inputs; all have a cell if any of them is periodic."""
    periodic = any(atoms.pbc.any() for atoms in structures)
    return collate([to_data(atoms, dtype, periodic=periodic) for atoms in structures])


def collate(graphs: Sequence[Data]) -> Batch:
    """Batch model inputs that may have different entries.

    If any structure has a net charge, the others are neutral. Other entries are included only if all structures have
    them: one file may give velocities, another not.
    """
    shared = set.intersection(*(set(graph.keys()) for graph in graphs))
    entries = [{key: graph[key] for key in shared} for graph in graphs]
    if any("total_charge" in graph for graph in graphs):
        for graph, entry in zip(graphs, entries, strict=True):
            entry["total_charge"] = graph.get("total_charge", graph.pos.new_zeros(1))
    return Batch.from_data_list([Data(**entry) for entry in entries])


def model_inputs(
    z: Tensor,
    pos: Tensor,
    *,
    batch: Tensor | None = None,
    ptr: Tensor | None = None,
    cell: Tensor | None = None,
    pbc: Tensor | None = None,
    vel: Tensor | None = None,
    charge: Tensor | None = None,
    total_charge: Tensor | None = None,
) -> Data:
    """Return the Data that models take, without the entries that are None.

    Engines that hold tensors instead of ASE Atoms build their inputs here.

    Shapes:
        z: [N]. pos: [N, 3] Å. batch: [N] structure index of each atom. ptr: [G + 1] row pointers.
        cell: [G, 3, 3] Å, rows are the vectors. pbc: [G, 3]. vel: [N, 3]. charge: [N] e. total_charge: [G] e.
    """
    optional = {
        "batch": batch,
        "ptr": ptr,
        "cell": cell,
        "pbc": pbc,
        "vel": vel,
        "charge": charge,
        "total_charge": total_charge,
    }
    return Data(z=z.long(), pos=pos, **{name: value for name, value in optional.items() if value is not None})


def to_atoms(data: Data) -> Atoms:
    """Convert model inputs of one structure to ASE Atoms: the inverse of ``to_data``."""
    from ase import Atoms

    def array(name: str) -> Any:
        return data[name].detach().double().cpu().numpy()

    atoms = Atoms(data.z.cpu().numpy(), array("pos"))
    if "cell" in data:
        atoms.set_cell(array("cell").reshape(3, 3))
        atoms.set_pbc(data.pbc.reshape(3).cpu().numpy())
    if "vel" in data:
        atoms.set_velocities(array("vel"))
    if "charge" in data:
        atoms.set_initial_charges(array("charge"))
    if "total_charge" in data:
        atoms.info["total_charge"] = float(data.total_charge)
    return atoms
