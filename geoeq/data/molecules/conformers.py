"""Molecules from SMILES: charge, radicals, a name shared by conformers and mirror images, and conformers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoeq.documents import read_text
from geoeq.errors import DataError, InputError
from geoeq.resources import import_extra

if TYPE_CHECKING:
    from ase import Atoms

__all__ = [
    "Molecule",
    "conformers",
    "embed",
    "embed_molfile",
    "embed_smiles",
    "parse_smiles",
    "read_smiles",
    "to_atoms",
]

#: Random seed of single conformers, so that a molecule always gets the same geometry.
CONFORMER_SEED = 20260

#: Two conformers are the same if their energies (kcal/mol) and sorted distances (Å) differ by less than this.
_SAME_ENERGY, _SAME_DISTANCES = 1e-2, 0.02

#: Time in seconds for the embedding of one molecule, by ETKDG and again from random coordinates.
_SECONDS = 60

#: Number of embeddings per requested conformer, as many embeddings coincide.
_TRIES = 3


@dataclass(frozen=True)
class Molecule:
    """A molecule described by a SMILES.

    Attributes:
        smiles: SMILES of the user.
        name: canonical SMILES with stereochemistry.
        group: canonical SMILES without stereochemistry and isotopes: mirror images have the same energy, and so belong
            to one group.
        charge: sum of the formal charges, e.
        multiplicity: number of unpaired electrons plus one.
    """

    smiles: str
    name: str
    group: str
    charge: int
    multiplicity: int


def read_smiles(path: str | Path) -> list[str]:
    """Read the SMILES in a file: the first word of each line, except lines that begin with #.

    Raises:
        DataError: the file does not exist, is not text or is empty.
    """
    lines = read_text(Path(path)).splitlines()
    smiles = [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]
    if not smiles:
        raise DataError(f"{path}: it contains no SMILES.")
    return smiles


def parse_smiles(text: str) -> tuple[Any, Molecule]:
    """Return RDKit's molecule with hydrogens, and its description.

    The atoms are in the order of the canonical SMILES, so that all SMILES of a molecule give the same geometry.

    Raises:
        InputError: the text is not a SMILES, or describes several molecules; the message names it.
        MissingExtraError: the extra "chem" is not installed.
    """
    import_extra("rdkit", "chem")
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        return _canonical(Chem.MolFromSmiles(text), text, text)


def _canonical(plain: Any, text: str, where: str) -> tuple[Any, Molecule]:
    """Return a molecule with hydrogens and atoms in canonical order, and its description."""
    from rdkit import Chem

    if plain is None or plain.GetNumAtoms() == 0:
        raise InputError(f"'{where}' is not a SMILES that RDKit understands.")
    for atom in plain.GetAtoms():
        if atom.GetAtomicNum() == 0:
            raise InputError(f"'{where}' has the placeholder '{atom.GetSymbol()}', which is not an element.")
        atom.SetAtomMapNum(0)
    if len(Chem.GetMolFrags(plain)) > 1:
        raise InputError(f"'{where}' describes several molecules; give a file with their positions instead.")
    name = Chem.MolToSmiles(plain)
    ordered = Chem.MolFromSmiles(name) or plain
    unpaired = sum(atom.GetNumRadicalElectrons() for atom in ordered.GetAtoms())
    known = Molecule(
        smiles=text,
        name=name,
        group=Chem.MolToSmiles(ordered, isomericSmiles=False),
        charge=Chem.GetFormalCharge(ordered),
        multiplicity=unpaired + 1,
    )
    return Chem.AddHs(ordered), known


def embed(molecule: Any, seed: int, count: int = 1) -> list[int]:
    """Add conformers to a molecule of ``parse_smiles`` by ETKDG, and relax them by MMFF94 if it has all parameters.

    Args:
        molecule: the molecule, which is changed.
        seed: random seed of the embedding.
        count: number of conformers.

    Returns:
        The identifiers of the conformers that were embedded; none if it takes longer than a minute. Where ETKDG fails,
        the embedding starts from random coordinates.

    Source:
        Riniker and Landrum, J. Chem. Inf. Model. 55, 2562 (2015); Tosco, Stiefl and Landrum, J. Cheminf. 6, 37 (2014).
    """
    from rdkit import rdBase
    from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

    settings: Any = rdDistGeom.ETKDGv2()
    settings.randomSeed, settings.timeout = seed, _SECONDS
    with rdBase.BlockLogs():
        identifiers: list[int] = []
        for settings.useRandomCoords in (False, True):
            identifiers = identifiers or list(rdDistGeom.EmbedMultipleConfs(molecule, count, settings))
        if identifiers and rdForceFieldHelpers.MMFFHasAllMoleculeParams(molecule):
            rdForceFieldHelpers.MMFFOptimizeMoleculeConfs(molecule, maxIters=2000)
    return identifiers


def embed_smiles(text: str) -> Atoms:
    """Return a conformer of the molecule that a SMILES describes, always the same one.

    Raises:
        InputError: the SMILES is invalid or has no conformer; the message names it.
        MissingExtraError: the extra "chem" is not installed.
    """
    atoms = _embedded(*parse_smiles(text), text)
    atoms.info["smiles"] = text
    return atoms


def embed_molfile(text: str, where: str) -> Atoms:
    """Return the same conformer for the bonds of a molfile, whose positions are ignored.

    Raises:
        InputError: RDKit does not understand the bonds, or finds no conformer; the message says ``where``.
        MissingExtraError: the extra "chem" is not installed.
    """
    import_extra("rdkit", "chem")
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        molecule = Chem.MolFromMolBlock(text)
        if molecule is None:
            raise InputError(f"{where}: RDKit does not understand its bonds.")
        return _embedded(*_canonical(molecule, Chem.MolToSmiles(molecule), where), where)


def _embedded(molecule: Any, known: Molecule, where: str) -> Atoms:
    if not embed(molecule, CONFORMER_SEED):
        raise InputError(f"RDKit finds no conformer for '{where}' within {_SECONDS} s; give a file with its geometry.")
    atoms = to_atoms(molecule, molecule.GetConformer().GetPositions())
    if known.charge:
        atoms.info["total_charge"] = known.charge
    return atoms


def to_atoms(molecule: Any, positions: NDArray[np.float64]) -> Atoms:
    """Return a molecule of RDKit as Atoms at ``positions``, [n, 3] Å, with the masses of its isotopes."""
    from ase import Atoms

    atoms = Atoms([atom.GetAtomicNum() for atom in molecule.GetAtoms()], positions)
    isotopes = {atom.GetIdx(): atom.GetMass() for atom in molecule.GetAtoms() if atom.GetIsotope()}
    if isotopes:
        masses = atoms.get_masses()
        masses[[*isotopes]] = [*isotopes.values()]
        atoms.set_masses(masses)
    return atoms


def conformers(molecule: Any, seed: int, count: int) -> list[NDArray[np.float64]]:
    """Return up to ``count`` different conformers, [n, 3] Å each, in the order of their energies.

    Mirror images count as one conformer.
    """
    identifiers = embed(molecule, seed, count if count == 1 else _TRIES * count)
    energies = np.array([_energy(molecule, identifier) for identifier in identifiers])
    kept: list[tuple[float, NDArray[np.float64], NDArray[np.float64]]] = []
    for index in np.argsort(energies, kind="stable"):
        positions = np.array(molecule.GetConformer(identifiers[index]).GetPositions(), dtype=np.float64)
        distances = np.sort(np.linalg.norm(positions[:, None] - positions[None], axis=-1), axis=None)
        if not any(_same(energies[index] - other, distances - theirs) for other, _, theirs in kept):
            kept.append((float(energies[index]), positions, distances))
    return [positions for _, positions, _ in kept[:count]]


def _energy(molecule: Any, conformer: int) -> float:
    """Return the energy by MMFF94 in kcal/mol; 0 if it lacks parameters."""
    from rdkit import rdBase
    from rdkit.Chem import rdForceFieldHelpers

    with rdBase.BlockLogs():
        parameters = rdForceFieldHelpers.MMFFGetMoleculeProperties(molecule)
        if parameters is None:
            return 0.0
        return float(rdForceFieldHelpers.MMFFGetMoleculeForceField(molecule, parameters, confId=conformer).CalcEnergy())


def _same(energy: float, distances: NDArray[np.float64]) -> bool:
    return abs(energy) < _SAME_ENERGY and bool(np.max(np.abs(distances), initial=0.0) < _SAME_DISTANCES)
