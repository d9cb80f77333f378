"""Outputs of VASP and ORCA through ASE: which energy, the sign and order of the stress, and what is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import units

from geoeq.data import join, load
from geoeq.data.formats.ase_files import ASEReader
from geoeq.errors import DataError

FORCES = np.array([[0.1, -0.2, 0.3], [-0.1, 0.2, -0.3]])
KBAR = np.array([[10.0, 1.0, 2.0], [1.0, 20.0, 3.0], [2.0, 3.0, 30.0]])


def varray(name: str, rows: np.ndarray) -> str:
    lines = "".join(f"<v> {' '.join(f'{x:.8f}' for x in row)} </v>" for row in rows)
    return f'<varray name="{name}" >{lines}</varray>'


def vasprun(free_energy: float = -10.5, zero_energy: float = -10.0, forces: bool = True, steps: int = 2) -> str:
    structure = (
        f"<structure><crystal>{varray('basis', np.eye(3) * 5)}</crystal>"
        f"{varray('positions', np.array([[0, 0, 0], [0.5, 0.5, 0.5]]))}</structure>"
    )
    energies = (
        f'<energy><i name="e_fr_energy">{free_energy}</i><i name="e_wo_entrp">{zero_energy}</i>'
        f'<i name="e_0_energy">{zero_energy}</i></energy>'
    )
    results = varray("forces", FORCES) if forces else ""
    step = (
        f"<calculation><scstep>{energies}</scstep>{structure}{results}{varray('stress', KBAR)}{energies}</calculation>"
    )
    atoms = "".join(f"<rc><c>{symbol}</c><c>1</c></rc>" for symbol in ("Na", "Cl"))
    return (
        '<?xml version="1.0" encoding="ISO-8859-1"?><modeling><kpoints/><parameters/>'
        f'<atominfo><array name="atoms"><set>{atoms}</set></array></atominfo>'
        f'<structure name="initialpos">{structure.removeprefix("<structure>")}{step * steps}</modeling>'
    )


ORCA = """
                                 * O   R   C   A *
Number of atoms                             ...      2
Total Charge           Charge          ....    0
---------------------------------
CARTESIAN COORDINATES (ANGSTROEM)
---------------------------------
  H      0.000000    0.000000    0.000000
  F      0.000000    0.000000    0.920000

----------------------------
CARTESIAN COORDINATES (A.U.)
----------------------------
  NO LB      ZA    FRAG     MASS         X           Y           Z
   0 H     1.0000    0     1.008    0.000000    0.000000    0.000000
   1 F     9.0000    0    18.998    0.000000    0.000000    1.738548

FINAL SINGLE POINT ENERGY      -100.250000000000
"""
GRADIENT = """
------------------
CARTESIAN GRADIENT
------------------

   1   H   :    0.000000000    0.000000000   -0.010000000
   2   F   :    0.000000000    0.000000000    0.010000000

"""
END = "                             ****ORCA TERMINATED NORMALLY****\n"


def test_vasp(tmp_path):
    path = tmp_path / "vasprun.xml"
    path.write_text(vasprun())
    dataset = load(path)
    assert dataset.numbers.tolist() == [11, 17] * 2
    np.testing.assert_allclose(dataset.targets["energy"], [-10.0, -10.0])
    np.testing.assert_allclose(dataset.targets["forces"], np.concatenate([FORCES] * 2))
    np.testing.assert_allclose(dataset.targets["stress"][1], -KBAR * 0.1 * units.GPa)
    np.testing.assert_allclose(dataset.positions[1], [2.5, 2.5, 2.5])
    said = " ".join(dataset.notes)
    assert "The energy read is the one without electronic entropy (sigma -> 0)" in said
    assert "differs by up to 0.5 eV; use 'keys: {energy: free_energy}' to read that" in said
    records = join(ASEReader(keys={"energy": "free_energy"}).read({"vasprun.xml": path}), "x")
    np.testing.assert_allclose(records.columns["energy"], [-10.5, -10.5])


def test_an_output_without_forces(tmp_path):
    path = tmp_path / "vasprun.xml"
    path.write_text(vasprun(forces=False))
    with pytest.raises(
        DataError,
        match=r"structure 0 .* has no forces in this output of VASP. To read it nevertheless, use a card with 'opt",
    ):
        load(path)
    records = join(ASEReader(keys={"forces": None}).read({"vasprun.xml": path}), "x")
    assert {*records.columns} == {"energy", "stress"}


def test_orca(tmp_path):
    path = tmp_path / "hf.out"
    path.write_text(ORCA + GRADIENT + END)
    dataset = load(path)
    assert dataset.targets["energy"][0] == pytest.approx(-100.25 * units.Hartree)
    np.testing.assert_allclose(dataset.targets["forces"][:, 2], np.array([0.01, -0.01]) * units.Hartree / units.Bohr)
    path.write_text(ORCA + END)
    with pytest.raises(DataError, match=r"hf.out: structure 0 .* has no forces in this output of ORCA"):
        load(path)
    path.write_text(ORCA + GRADIENT)
    with pytest.raises(DataError, match=r"hf.out: structure 0 .* cannot be read: .*did not finish"):
        load(path)


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_output_is_named(tmp_path, seed):
    random = np.random.default_rng(seed)
    name, text = [("vasprun.xml", vasprun()), ("hf.out", ORCA + GRADIENT + END)][seed % 2]
    content = bytearray(text.encode())
    if seed % 4 < 2:
        content = content[: random.integers(len(content))]
    else:
        for place in random.integers(len(content), size=4):
            content[place] ^= 1 << random.integers(7)
    path = Path(tmp_path / name)
    path.write_bytes(content)
    try:
        load(path)
    except DataError as error:
        assert str(path) in str(error)  # noqa: PT017
