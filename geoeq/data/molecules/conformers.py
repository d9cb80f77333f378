"""Molecules from SMILES: charge, radicals, a name that conformers and mirror images share, and conformers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoeq.errors import DataError, InputError
from geoeq.resources import import_extra

__all__ = ["Molecule", "conformers", "embed", "parse_smiles", "read_smiles"]

#: Conformers are the same where energies (kcal/mol) and sorted distances (Å) differ by less.
_SAME_ENERGY, _SAME_DISTANCES = 1e-2, 0.02

#: Embeddings tried for each conformer that is asked for, as many coincide.
_TRIES = 3


@dataclass(frozen=True)
class Molecule:
    """What a SMILES says.

    Attributes:
        smiles: as it was given.
        name: canonical, with stereochemistry.
        group: canonical without stereochemistry and isotopes: mirror images have one energy, and so one group.
        charge: the sum of formal charges, e.
        multiplicity: one more than the number of unpaired electrons.
    """

    smiles: str
    name: str
    group: str
    charge: int
    multiplicity: int


def read_smiles(path: Path) -> list[str]:
    """The SMILES in a file: the first word of each line; what follows it, and lines that begin with #, are left out.

    Raises:
        DataError: there is no such file, or nothing in it.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the file of SMILES cannot be read ({error}).") from error
    found = [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]
    if not found:
        raise DataError(f"{path}: there is no SMILES in it.")
    return found


def parse_smiles(text: str) -> tuple[Any, Molecule]:
    """RDKit's molecule with its hydrogens, and what the SMILES says.

    Raises:
        InputError: it is no SMILES, or one of several molecules; the message names it.
        MissingExtraError: the extra "chem" is not installed.
    """
    import_extra("rdkit", "chem")
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        plain = Chem.MolFromSmiles(text)
        if plain is None or plain.GetNumAtoms() == 0:
            raise InputError(f"'{text}' is not a SMILES that RDKit understands.")
        if len(Chem.GetMolFrags(plain)) > 1:
            raise InputError(f"'{text}' is of several molecules, and does not say how they lie: give a file of them.")
        unpaired = sum(atom.GetNumRadicalElectrons() for atom in plain.GetAtoms())
        known = Molecule(
            smiles=text,
            name=Chem.MolToSmiles(plain),
            group=Chem.MolToSmiles(plain, isomericSmiles=False),
            charge=Chem.GetFormalCharge(plain),
            multiplicity=unpaired + 1,
        )
        return Chem.AddHs(plain), known


def embed(molecule: Any, seed: int, count: int = 1) -> list[int]:
    """Give a molecule of ``parse_smiles`` conformers: ETKDG, then MMFF94 where that has all parameters.

    Args:
        molecule: it is changed.
        seed: of the distances.
        count: how many.

    Returns:
        The identifiers of the conformers that were found.

    Source:
        Riniker and Landrum, J. Chem. Inf. Model. 55, 2562 (2015); Tosco, Stiefl and Landrum, J. Cheminf. 6, 37 (2014).
    """
    from rdkit import rdBase
    from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

    with rdBase.BlockLogs():
        found = [int(place) for place in rdDistGeom.EmbedMultipleConfs(molecule, count, randomSeed=seed)]
        if found and rdForceFieldHelpers.MMFFHasAllMoleculeParams(molecule):
            rdForceFieldHelpers.MMFFOptimizeMoleculeConfs(molecule, maxIters=2000)
    return found


def conformers(molecule: Any, seed: int, count: int) -> list[NDArray[np.float64]]:
    """Different conformers, the lowest in energy first, [n, 3] Å each; ``count`` of them or fewer.

    Mirror images count as one.
    """
    found = embed(molecule, seed, count if count == 1 else _TRIES * count)
    energies = np.array([_energy(molecule, identifier) for identifier in found])
    kept: list[tuple[float, NDArray[np.float64], NDArray[np.float64]]] = []
    for place in np.argsort(energies, kind="stable"):
        positions = np.array(molecule.GetConformer(found[place]).GetPositions(), dtype=np.float64)
        distances = np.sort(np.linalg.norm(positions[:, None] - positions[None], axis=-1), axis=None)
        if not any(_same(energies[place] - other, distances - theirs) for other, _, theirs in kept):
            kept.append((float(energies[place]), positions, distances))
    return [positions for _, positions, _ in kept[:count]]


def _energy(molecule: Any, conformer: int) -> float:
    """By MMFF94, kcal/mol; 0 where that lacks parameters."""
    from rdkit import rdBase
    from rdkit.Chem import rdForceFieldHelpers

    with rdBase.BlockLogs():
        parameters = rdForceFieldHelpers.MMFFGetMoleculeProperties(molecule)
        if parameters is None:
            return 0.0
        return float(rdForceFieldHelpers.MMFFGetMoleculeForceField(molecule, parameters, confId=conformer).CalcEnergy())


def _same(energy: float, distances: NDArray[np.float64]) -> bool:
    return abs(energy) < _SAME_ENERGY and bool(np.max(np.abs(distances), initial=0.0) < _SAME_DISTANCES)
