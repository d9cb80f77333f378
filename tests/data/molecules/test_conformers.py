"""What a SMILES says: charge, radicals, whose mirror image it is, and how many conformers there are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from geoeq.data.molecules.conformers import conformers, parse_smiles, read_smiles
from geoeq.errors import DataError, InputError
from geoeq.factory import Settings
from geoeq.factory.starts import Start, spin_fault
from geoeq.factory.tasks import starts_of

pytest.importorskip("rdkit")


@pytest.mark.parametrize(
    ("smiles", "charge", "multiplicity"),
    [
        ("CCO", 0, 1),
        ("CC(=O)[O-]", -1, 1),
        ("C[NH3+]", 1, 1),
        ("[CH3]", 0, 2),
        ("[CH2]", 0, 3),
        ("[O][O]", 0, 3),
        ("[NH3+]CC(=O)[O-]", 0, 1),
        ("[O-]C(=O)C(=O)[O-]", -2, 1),
        ("C[CH]C[NH3+]", 1, 2),
    ],
)
def test_charges_and_radicals_are_those_of_the_smiles(smiles: str, charge: int, multiplicity: int) -> None:
    found = starts_of(smiles, Settings("emt"))
    assert found.failures == []
    start = Start.from_dict(found.starts[0])
    assert (start.charge, start.multiplicity) == (charge, multiplicity)


@pytest.mark.parametrize(
    ("smiles", "reason"),
    [
        ("C1#CC1", "finds no conformer"),
        ("no smiles", "not a SMILES"),
        ("[Na+].[Cl-]", "several molecules"),
    ],
)
def test_a_smiles_that_cannot_be_sampled_is_a_failure_with_its_reason(smiles: str, reason: str) -> None:
    found = starts_of(smiles, Settings("emt"))
    assert found.starts == []
    assert [failure.name for failure in found.failures] == [smiles]
    assert reason in found.failures[0].reason


def test_mirror_images_are_one_group() -> None:
    left, right = (parse_smiles(text)[1] for text in ("C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O"))
    assert left.name != right.name
    assert left.group == right.group == parse_smiles("OC(=O)C(C)N")[1].group


def test_butane_has_two_conformers_and_mirror_images_count_once() -> None:
    molecule, _ = parse_smiles("CCCC")
    found = conformers(molecule, 1, 10)
    widths = sorted(round(float(np.linalg.norm(positions[0] - positions[3])), 1) for positions in found)
    assert widths == [3.1, 3.9]  # gauche, anti
    assert np.linalg.norm(found[0][0] - found[0][3]) > 3.8  # the lower in energy first
    assert len(conformers(parse_smiles("c1ccccc1")[0], 1, 5)) == 1


def test_conformers_depend_on_the_molecule_and_not_on_how_it_is_written() -> None:
    one, other = (starts_of(text, Settings("emt", conformers=2)).starts for text in ("CCCO", "CCCO"))
    assert one == other
    assert starts_of("CCCO", Settings("emt", seed=1)).starts[0] != one[0]


def test_a_file_of_smiles(tmp_path: Path) -> None:
    file = tmp_path / "some.smi"
    file.write_text("# names follow\nCCO ethanol\n\n  C\tmethane\n")
    assert read_smiles(file) == ["CCO", "C"]
    file.write_text("# nothing\n")
    with pytest.raises(DataError, match="no SMILES"):
        read_smiles(file)
    with pytest.raises(DataError, match="There is no file"):
        read_smiles(tmp_path / "none.smi")


def test_a_start_goes_through_text_to_the_last_bit() -> None:
    start = Start.from_dict(starts_of("CO", Settings("emt")).starts[0])
    again = Start.from_dict(start.to_dict())
    assert np.array_equal(again.atoms.positions, start.atoms.positions)
    assert again.to_dict() == start.to_dict()


@pytest.mark.parametrize(
    ("charge", "multiplicity", "fault"),
    [
        (0, 1, None),
        (0, 3, None),
        (1, 2, None),
        (-1, 2, None),
        (0, 2, "10 electrons, of which 1"),
        (1, 1, "9 electrons"),
    ],
)
def test_electrons_come_in_pairs(charge: int, multiplicity: int, fault: str | None) -> None:
    found = spin_fault(Atoms("OH2"), charge, multiplicity)
    assert found is None if fault is None else fault in str(found)


def test_not_a_smiles() -> None:
    with pytest.raises(InputError, match="'xx' is not a SMILES"):
        parse_smiles("xx")
