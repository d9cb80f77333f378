"""Structures to predict, from files that ASE reads, sdf files and SMILES; and their conversion to model inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch_geometric.data import Data

from geoeq.data.formats.ase_files import read_frames
from geoeq.data.molecules.conformers import embed, parse_smiles
from geoeq.errors import DataError, InputError

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["Structure", "from_smiles", "read_structures", "to_data"]

#: Random seed of conformers, so that a SMILES always gives the same geometry.
CONFORMER_SEED = 20260


@dataclass(frozen=True)
class Structure:
    """Atoms and their origin.

    Attributes:
        atoms: the atoms.
        where: "file.xyz, frame 3" or the SMILES, for messages and tables.
    """

    atoms: Atoms
    where: str


def read_structures(path: Path) -> list[Structure]:
    """Read all frames of a file.

    Raises:
        DataError: the file is missing, empty or damaged; the message names it and the frame.
    """
    if not path.is_file():
        raise DataError(f"There is no file '{path}'.")
    frames = read_frames(path)
    structures: list[Structure] = []
    while True:
        where = f"{path.name}, frame {len(structures)}"
        try:
            atoms = next(frames)
        except StopIteration:
            break
        except DataError:
            raise
        except Exception as error:  # ASE's readers raise many types of errors
            raise DataError(f"{where}: it cannot be read ({type(error).__name__}: {error}).") from error
        if len(atoms) == 0:
            raise DataError(f"{where}: it has no atoms.")
        structures.append(Structure(atoms, where))
    if not structures:
        raise DataError(f"{path.name}: it contains no structures.")
    return structures


def from_smiles(smiles: Sequence[str]) -> list[Structure]:
    """Generate a conformer for each SMILES: add hydrogens, embed by ETKDG with a fixed seed, relax with MMFF94.

    Raises:
        InputError: a SMILES is invalid or has no conformer; the message names it.
        MissingExtraError: the extra "chem" is not installed.
    """
    from ase import Atoms

    structures = []
    for text in smiles:
        molecule, _ = parse_smiles(text)
        if not embed(molecule, CONFORMER_SEED):
            raise InputError(f"RDKit finds no conformer for '{text}'; give a file with its geometry.")
        numbers = [atom.GetAtomicNum() for atom in molecule.GetAtoms()]
        atoms = Atoms(numbers, molecule.GetConformer().GetPositions(), info={"smiles": text})
        structures.append(Structure(atoms, text))
    return structures


def to_data(structure: Structure, dtype: torch.dtype, *, periodic: bool) -> Data:
    """Convert a structure to the inputs of a model.

    Args:
        structure: the structure.
        dtype: data type of real numbers.
        periodic: whether to include the cell, because this structure or another one of its batch is periodic.

    Shapes:
        z [N], pos [N, 3] Å, cell [1, 3, 3] and pbc [1, 3]; vel [N, 3] in ASE's unit and charge [N] if the structure
        has them.
    """
    atoms = structure.atoms
    data = Data(z=torch.from_numpy(atoms.numbers).long(), pos=torch.as_tensor(atoms.positions, dtype=dtype))
    if periodic:
        data.cell = torch.as_tensor(np.asarray(atoms.cell)[None], dtype=dtype)
        data.pbc = torch.from_numpy(atoms.pbc[None].copy())
    if atoms.has("momenta"):
        data.vel = torch.as_tensor(atoms.get_velocities(), dtype=dtype)
    if atoms.has("initial_charges"):
        data.charge = torch.as_tensor(atoms.get_initial_charges(), dtype=dtype)
    return data
