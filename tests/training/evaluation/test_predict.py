"""Predictions for files and SMILES."""

from __future__ import annotations

import csv
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from rich.console import Console

from geoeq.cli.main import main
from geoeq.errors import DataError, FieldError, GeoeqError, InputError, UnknownElementError
from geoeq.models import EGNN, Forces, GraphScalar, Positions, save_checkpoint
from geoeq.training.evaluation.predict import predict


@pytest.fixture
def run(tmp_path: Path) -> Path:
    model = EGNN([GraphScalar("gap")], width=8, layers=1, cutoff=4.0, elements=[1, 6, 8])
    save_checkpoint(model, tmp_path / "run" / "checkpoint", {"report": {"gap": "meV"}})
    return tmp_path / "run"


@pytest.fixture
def molecules(tmp_path: Path) -> Path:
    frames = [molecule(name) for name in ("CH4", "H2O", "C6H6", "H2O", "CH3OH")]
    frames[1].info["note"] = "water"
    path = tmp_path / "molecules.xyz"
    ase.io.write(path, frames, format="extxyz")
    return path


def test_one_value_for_each_frame_in_their_order(run: Path, molecules: Path, console: Console) -> None:
    together = predict(run, console, file=molecules)
    alone = predict(run, console, file=molecules, batch_size=1)
    assert [float(v["gap"]) for v in together] == pytest.approx([float(v["gap"]) for v in alone], rel=1e-5)
    assert float(together[1]["gap"]) == pytest.approx(float(together[3]["gap"]))
    assert len({round(float(v["gap"]), 3) for v in together}) == 4


def test_units_are_converted_and_written(run: Path, molecules: Path, console: Console, tmp_path: Path) -> None:
    values = predict(run, console, file=molecules, output=tmp_path / "out.csv")
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert [row["formula"] for row in rows] == ["CH4", "H2O", "C6H6", "H2O", "CH4O"]
    assert [float(row["gap [meV]"]) for row in rows] == pytest.approx([float(v["gap"]) for v in values], rel=1e-6)
    other = predict(run, console, file=molecules, units={"gap": "eV"})
    assert 1000 * float(other[0]["gap"]) == pytest.approx(float(values[0]["gap"]))
    with pytest.raises(FieldError, match="Did you mean 'gap'"):
        predict(run, console, file=molecules, units={"gapp": "eV"})
    with pytest.raises(FieldError, match=r"'kcal' is not a unit of a molecule.* Write kcal/mol"):
        predict(run, console, file=molecules, units={"gap": "kcal"})
    with pytest.raises(FieldError, match="cannot be converted"):
        predict(run, console, file=molecules, units={"gap": "Å"})


def test_extended_xyz_keeps_what_the_file_said(run: Path, molecules: Path, console: Console, tmp_path: Path) -> None:
    values = predict(run, console, file=molecules, output=tmp_path / "out.xyz")
    frames = ase.io.read(tmp_path / "out.xyz", index=":")
    assert [frame.info["predicted_gap"] for frame in frames] == pytest.approx([float(v["gap"]) for v in values])
    assert frames[1].info["note"] == "water"
    assert frames[0].info["units"] == "predicted_gap=meV"
    np.testing.assert_allclose(frames[2].positions, molecule("C6H6").positions, atol=1e-6)


def test_what_belongs_to_atoms_fits_xyz_only(molecules: Path, console: Console, tmp_path: Path) -> None:
    save_checkpoint(EGNN([Positions()], width=8, layers=1, cutoff=4.0), tmp_path / "model")
    predict(tmp_path / "model", console, file=molecules, output=tmp_path / "out.xyz")
    assert ase.io.read(tmp_path / "out.xyz", index=2).arrays["predicted_positions"].shape == (12, 3)
    with pytest.raises(FieldError, match=r"ends with \.xyz"):
        predict(tmp_path / "model", console, file=molecules, output=tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_periodic_and_open_structures_in_one_file(run: Path, console: Console, tmp_path: Path) -> None:
    diamond = bulk("C", cubic=True)
    ase.io.write(
        tmp_path / "mixed.xyz", [molecule("CH4"), diamond, molecule("H2O"), diamond * (2, 1, 1)], format="extxyz"
    )
    values = [float(v["gap"]) for v in predict(run, console, file=tmp_path / "mixed.xyz")]
    assert values[1] == pytest.approx(values[3], rel=1e-4)  # a mean over atoms does not see the size of the cell
    molecule_alone = Atoms(diamond.numbers, diamond.positions) + Atoms("H", [[0, 0, -1.1]])
    ase.io.write(tmp_path / "open.xyz", molecule_alone, format="extxyz")
    assert float(predict(run, console, file=tmp_path / "open.xyz")[0]["gap"]) != pytest.approx(values[1], rel=1e-4)


def test_a_crystal_has_its_stress_beside_a_molecule(console: Console, tmp_path: Path) -> None:
    model = Forces(EGNN([GraphScalar("energy")], width=8, layers=1, cutoff=3.0).double(), stress=True)
    save_checkpoint(model, tmp_path / "run")
    crystal, water = bulk("Si", cubic=True), molecule("H2O")
    ase.io.write(tmp_path / "mixed.xyz", [water, crystal], format="extxyz")
    ase.io.write(tmp_path / "water.xyz", water, format="extxyz")
    open_one, periodic = predict(tmp_path / "run", console, file=tmp_path / "mixed.xyz", output=tmp_path / "out.csv")
    ase.io.write(tmp_path / "crystal.xyz", crystal, format="extxyz")
    alone = predict(tmp_path / "run", console, file=tmp_path / "crystal.xyz")[0]
    np.testing.assert_allclose(periodic["stress"], alone["stress"], rtol=1e-9)
    assert "stress" not in open_one
    first, second = csv.DictReader((tmp_path / "out.csv").read_text().splitlines())
    assert first["energy [eV]"]
    assert first["stress_0 [eV/Å^3]"] == ""
    assert float(second["stress_0 [eV/Å^3]"]) == pytest.approx(float(alone["stress"][0, 0]), rel=1e-6)

    for name in ("out.csv", "out.xyz"):
        predict(tmp_path / "run", console, file=tmp_path / "water.xyz", output=tmp_path / name)
        assert "stress" not in (tmp_path / name).read_text()
    predict(tmp_path / "run", console, file=tmp_path / "water.xyz")


def test_frames_with_and_without_velocities_in_one_file(run: Path, console: Console, tmp_path: Path) -> None:
    still, moving = molecule("H2O"), molecule("H2O")
    moving.set_velocities(np.ones((3, 3)))
    path = tmp_path / "mixed.traj"
    ase.io.write(path, [still, moving])
    values = predict(run, console, file=path)
    assert float(values[0]["gap"]) == float(values[1]["gap"])

    save_checkpoint(EGNN([Positions()], width=8, layers=1, cutoff=4.0, velocity=True), tmp_path / "model")
    assert not predict(tmp_path / "model", console, file=path, output=tmp_path / "out.xyz")[0]
    assert "No prediction for mixed.traj, frame 0: " in console.file.getvalue()
    assert "needs data.vel" in console.file.getvalue()


def test_sdf_with_several_records(run: Path, console: Console, tmp_path: Path) -> None:
    chem = pytest.importorskip("rdkit.Chem")
    from geoeq.data.structures import from_smiles

    path = tmp_path / "two.sdf"
    with chem.SDWriter(str(path)) as writer:
        for text in ("CO", "CCO"):
            mol = chem.AddHs(chem.MolFromSmiles(text))
            from rdkit.Chem import rdDistGeom

            rdDistGeom.EmbedMolecule(mol, randomSeed=20260)
            writer.write(mol)
    assert len(predict(run, console, file=path)) == 2
    assert [len(structure.atoms) for structure in from_smiles(["CO", "CCO"])] == [6, 9]


def test_smiles_give_one_geometry_always(run: Path, console: Console) -> None:
    pytest.importorskip("rdkit")
    first, second = (predict(run, console, smiles=["CCO", "c1ccccc1"]) for _ in range(2))
    assert [float(v["gap"]) for v in first] == [float(v["gap"]) for v in second]
    for wrong in ("CC(", "hello", ""):
        with pytest.raises(InputError, match="is not a SMILES"):
            predict(run, console, smiles=[wrong])


def test_an_unknown_element_is_named_with_its_frame(
    run: Path, molecules: Path, console: Console, tmp_path: Path
) -> None:
    frames = [*ase.io.read(molecules, index=":"), molecule("CH3Cl")]
    ase.io.write(molecules, frames, format="extxyz")
    values = predict(run, console, file=molecules, output=tmp_path / "out.xyz")
    assert [bool(entry) for entry in values] == [True] * 5 + [False]
    assert len(ase.io.read(tmp_path / "out.xyz", index=":")) == 5
    assert "No prediction for molecules.xyz, frame 5: " in console.file.getvalue()
    ase.io.write(tmp_path / "only.xyz", molecule("CH3Cl"))
    with pytest.raises(UnknownElementError, match=r"only\.xyz, frame 0: "):
        predict(run, console, file=tmp_path / "only.xyz", output=tmp_path / "none.xyz")
    assert not (tmp_path / "none.xyz").exists()


@pytest.mark.parametrize("kind", ["smi", "csv"])
def test_a_bad_molecule_does_not_lose_the_others(run: Path, console: Console, tmp_path: Path, kind: str) -> None:
    pytest.importorskip("rdkit")
    rows = [("CCO", "ethanol"), ("C1CC", "open ring"), ("CCl", ""), ("O", "water")]
    head, separator = ("SMILES Name\n", " ") if kind == "smi" else ("\ufeffId,Smiles,x\n", ",")
    lines = [separator.join(row if kind == "smi" else (*row[::-1], "1")) for row in rows]
    (tmp_path / f"a.{kind}").write_text(head + "\n".join(lines) + "\n")
    assert main(["predict", str(run), str(tmp_path / f"a.{kind}"), "-o", str(tmp_path / "out.csv")]) == 1
    written = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert [(row["smiles"], row["name"]) for row in written] == rows
    assert [row["formula"] for row in written] == ["C2H6O", "", "CH3Cl", "H2O"]
    assert [bool(row["gap [meV]"]) for row in written] == [True, False, False, True]
    assert "is not a SMILES" in written[1]["error"]
    assert "Cl" in written[2]["error"]
    alone = predict(run, console, smiles=["O"])
    assert float(written[3]["gap [meV]"]) == pytest.approx(float(alone[0]["gap"]), rel=1e-4)


def test_a_csv_without_smiles_is_refused(run: Path, console: Console, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("name,formula\nwater,H2O\n")
    with pytest.raises(DataError, match=r"a\.csv: it has no column 'smiles'; its columns are name, formula"):
        predict(run, console, file=tmp_path / "a.csv")


def test_the_energies_of_a_potential_fit_csv(molecules: Path, console: Console, tmp_path: Path) -> None:
    potential = Forces(EGNN([GraphScalar("energy")], width=8, layers=1, cutoff=4.0))
    save_checkpoint(potential, tmp_path / "model")
    values = predict(tmp_path / "model", console, file=molecules, output=tmp_path / "out.csv")
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert [float(row["energy [eV]"]) for row in rows] == pytest.approx([float(v["energy"]) for v in values], rel=1e-6)
    assert "Not in a CSV file, as they have a value per atom: forces" in console.file.getvalue()
    predict(tmp_path / "model", console, file=molecules, output=tmp_path / "out.extxyz")
    frame = ase.io.read(tmp_path / "out.extxyz", index=2)
    np.testing.assert_allclose(frame.arrays["predicted_forces"], values[2]["forces"], atol=1e-7)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "broken.xyz",
            b"3\n\nO 0 0 0\nH 0 0 1\nH 0 1 zero\n",
            "broken.xyz: structure 0 (counted from 0) cannot be read: column 'pos'",
        ),
        ("broken.xyz", b"1\n\nO 0 0 0\n3\n\nO 0 0 0\nH 0 0 1\n", "broken.xyz: structure 1 (counted from 0)"),
        ("broken.xyz", b"", "broken.xyz: the file is empty."),
        ("broken.xyz", b"\xff\xfe\0", "broken.xyz: line 1 is not text"),
        (
            "broken.xyz",
            b"1\n\nXx 0 0 0\n",
            "broken.xyz: structure 0 (counted from 0) cannot be read: there is no element 'Xx'.",
        ),
        ("broken.txt", b"hello", "such as .xyz, .cif or .sdf."),
    ],
)
def test_a_broken_file_is_named(
    run: Path, console: Console, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        predict(run, console, file=path, output=tmp_path / "out.csv")
    assert message in str(error.value)
    assert not (tmp_path / "out.csv").exists()


def test_what_was_not_meant(run: Path, molecules: Path, console: Console, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no file"):
        predict(run, console, file=tmp_path / "nothing.xyz")
    with pytest.raises(GeoeqError, match="a file, or --smiles"):
        predict(run, console)
    with pytest.raises(InputError, match=r"out\.json"):
        predict(run, console, file=molecules, output=tmp_path / "out.json")
