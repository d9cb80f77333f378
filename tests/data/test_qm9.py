"""QM9 from each published format gives the same molecules, in explicit units, without the uncharacterised ones."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import units

from geoeq.data import load, load_card, prepare
from geoeq.data.dataset import Dataset
from geoeq.data.qm9 import ATOM_REFERENCES, QM9Reader
from geoeq.errors import DataError

SAMPLE = Path(load_card("qm9").folder, "sample", "qm9_official_100.xyz")
MOLECULES = ase.io.read(SAMPLE, index=":")
ORDER = ("A", "B", "C", "mu", "alpha", "epsHOMO", "epsLUMO", "epsgap", "<R2>", "zpve", "U0", "U", "H", "G", "Cv")
DROPPED = (58, 61, 80)


def fortran(value: float) -> str:
    """As the official files write numbers: small ones like 6.3*^-6."""
    return (
        f"{value:.10f}" if abs(value) >= 1e-4 or value == 0 else f"{value:.5e}".replace("e-0", "*^-").replace("e", "*^")
    )


def official_xyz(index: int) -> str:
    atoms = MOLECULES[index - 1]
    values = "\t".join(str(atoms.info[name]) for name in ORDER)
    rows = [
        f"{symbol}\t{fortran(x)}\t{fortran(y)}\t{fortran(z)}\t-0.535689"
        for symbol, (x, y, z) in zip(atoms.get_chemical_symbols(), atoms.positions)
    ]
    lines = [str(len(atoms)), f"gdb {index}\t{values}\t", *rows, "1341.307\t3151.68", "C\tC\t", "InChI=1S/CH4/h1H4"]
    return "\n".join(lines) + "\n"


def official_sdf() -> str:
    blocks = []
    for index, atoms in enumerate(MOLECULES, start=1):
        rows = [
            f"{x:10.4f}{y:10.4f}{z:10.4f} {symbol:<3} 0  0  0  0  0  0  0  0  0  0  0  0"
            for symbol, (x, y, z) in zip(atoms.get_chemical_symbols(), atoms.positions)
        ]
        counts = f"{len(atoms):3d}  1  0  0  0  0  0  0  0  0999 V2000"
        blocks.append(
            "\n".join([f"gdb_{index}", "  -OEChem-03231823243D", "", counts, *rows, "  1  2  1  0", "M  END"])
        )
    return "\n$$$$\n".join(blocks) + "\n$$$$\n"


def official_csv() -> str:
    head = "mol_id,A,B,C,mu,alpha,homo,lumo,gap,r2,zpve,u0,u298,h298,g298,cv,u0_atom,u298_atom,h298_atom,g298_atom"
    rows = [
        f"gdb_{i}," + ",".join(str(atoms.info[name]) for name in ORDER) + ",-395.9,-398.6,-401.0,-372.4"
        for i, atoms in enumerate(MOLECULES, start=1)
    ]
    return "\n".join([head, *rows]) + "\n"


def uncharacterized(count: int = 3054) -> str:
    head = ["", "List of molecules among the 133885 GDB9 molecules", "=" * 80, "#   Index    SMILES", "=" * 80]
    indices = [*DROPPED, *range(1000, 1000 + count - len(DROPPED))]
    return "\n".join(
        [*head, *[f"{i:8d}    NC(=N)C#N    NC(=N)C#N    [NH]C(=[NH2])C#N    6.036217" for i in indices], ""]
    )


def add(archive: tarfile.TarFile, name: str, text: str) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(text.encode())
    archive.addfile(member, io.BytesIO(text.encode()))


def write_raw(folder: Path, kind: str) -> dict[str, Path]:
    """The published files of one format, holding the 100 molecules."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "uncharacterized.txt").write_text(uncharacterized(), encoding="utf-8")
    path = folder / {"xyz": "dsgdb9nsd.xyz.tar.bz2", "sdf": "gdb9.tar.gz", "sdf-zip": "qm9.zip"}[kind]
    if kind == "sdf-zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("gdb9.sdf", official_sdf())
            archive.writestr("gdb9.sdf.csv", official_csv())
    elif kind == "sdf":
        with tarfile.open(path, "w:gz") as archive:
            add(archive, "gdb9.sdf.csv", official_csv())
            add(archive, "gdb9.sdf", official_sdf())
    else:
        with tarfile.open(path, "w:bz2") as archive:
            for index in reversed(range(1, 101)):  # no order is promised
                add(archive, f"dsgdb9nsd_{index:06d}.xyz", official_xyz(index))
    return {name.name: name for name in (folder / "uncharacterized.txt", path)}


@pytest.mark.parametrize("kind", ["xyz", "sdf", "sdf-zip"])
def test_each_format(tmp_path, kind):
    records = QM9Reader(molecules=100).read(write_raw(tmp_path, kind))
    kept = [atoms for i, atoms in enumerate(MOLECULES, start=1) if i not in DROPPED]
    np.testing.assert_array_equal(np.diff(records.ptr), [len(atoms) for atoms in kept])
    np.testing.assert_array_equal(records.numbers, np.concatenate([atoms.numbers for atoms in kept]))
    precision = 1e-9 if kind == "xyz" else 0.51e-4
    np.testing.assert_allclose(
        records.positions, np.concatenate([atoms.positions for atoms in kept]), rtol=0, atol=precision
    )
    for column, name in zip(
        ("A", "B", "C", "mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "U0", "U", "H", "G", "Cv"), ORDER
    ):
        np.testing.assert_array_equal(records.columns[column], [atoms.info[name] for atoms in kept])


@pytest.mark.parametrize("kind", ["xyz", "sdf"])
def test_files_saved_by_hand_are_used(root, kind, monkeypatch):
    card = load_card("qm9")
    write_raw(root / "qm9" / "raw", kind)
    card.options["molecules"] = 100
    folder = prepare(card)
    assert len(Dataset.open(card, folder)) == 97


def test_fields_and_units():
    dataset = load("qm9", sample=True)
    methane = {name: values[0] for name, values in dataset.targets.items()}
    kcal = units.kcal / units.mol
    expected = {
        "dipole_norm": 0.0,
        "polarizability": 13.21 * units.Bohr**3,
        "homo": -0.3877 * units.Hartree,
        "lumo": 0.1171 * units.Hartree,
        "gap": 0.5048 * units.Hartree,
        "spatial_extent": 35.3641 * units.Bohr**2,
        "zero_point_energy": 0.044749 * units.Hartree,
        "internal_energy_0k": -40.47893 * units.Hartree,
        "internal_energy": -40.476062 * units.Hartree,
        "enthalpy": -40.475117 * units.Hartree,
        "free_energy": -40.498597 * units.Hartree,
        "heat_capacity": 6.469e-3 * kcal,
        # These as DeepChem's csv file gives them for methane, in kcal/mol.
        "atomization_energy_0k": -395.999594594 * kcal,
        "atomization_energy_298k": -398.643290011 * kcal,
        "atomization_enthalpy": -401.014646522 * kcal,
        "atomization_free_energy": -372.471772148 * kcal,
    }
    assert set(methane) == set(expected) | {"rotational_constants"}
    for name, value in expected.items():
        assert methane[name] == pytest.approx(value, rel=2e-6, abs=1e-12), name
    np.testing.assert_allclose(methane["rotational_constants"], [157.7118e-6, 157.70997e-6, 157.70699e-6])  # 1/fs


def test_report_units_are_those_of_the_papers():
    dataset = load("qm9", sample=True)
    reported = {
        name: dataset.targets[name][1] * target.to_report(name) for name, target in dataset.card.targets.items()
    }
    ammonia = {"dipole_norm": 1.6256, "polarizability": 9.46, "spatial_extent": 26.1563, "heat_capacity": 6.316}
    for name, value in ammonia.items():
        assert reported[name] == pytest.approx(value, rel=1e-9)
    assert reported["gap"] == pytest.approx(0.3399 * 27211.386, rel=1e-6)
    np.testing.assert_allclose(reported["rotational_constants"], [293.60975, 293.54111, 191.39397])


def test_totals_and_atomization_energies_are_not_confused():
    dataset = load("qm9", sample=True)
    pairs = {
        "internal_energy_0k": ("atomization_energy_0k", "U0"),
        "internal_energy": ("atomization_energy_298k", "U"),
        "enthalpy": ("atomization_enthalpy", "H"),
        "free_energy": ("atomization_free_energy", "G"),
    }
    for total, (atomization, column) in pairs.items():
        for g in range(len(dataset)):
            atoms = dataset.numbers[dataset.ptr[g] : dataset.ptr[g + 1]]
            free = sum(ATOM_REFERENCES[column][z] for z in atoms) * units.Hartree
            assert dataset.targets[atomization][g] == pytest.approx(dataset.targets[total][g] - free, abs=1e-8)
        assert dataset.targets[total].max() < -1000
        assert -100 < dataset.targets[atomization].min() < dataset.targets[atomization].max() < -8


def test_numbers_as_the_official_files_write_them(tmp_path):
    files = write_raw(tmp_path, "xyz")
    rewrite(files["dsgdb9nsd.xyz.tar.bz2"], "157.7118", "6.3*^-6")
    records = QM9Reader(molecules=100).read(files)
    assert records.columns["A"][0] == 6.3e-6


@pytest.mark.parametrize("count", [3053, 3055, 3])
def test_a_list_of_another_length(tmp_path, count):
    files = write_raw(tmp_path, "xyz")
    files["uncharacterized.txt"].write_text(uncharacterized(count))
    with pytest.raises(DataError, match=f"uncharacterized.txt lists {count} molecules instead of 3054"):
        QM9Reader(molecules=100).read(files)


def test_a_missing_molecule(tmp_path):
    with pytest.raises(DataError, match="contains 100 molecules instead of 133885"):
        QM9Reader().read(write_raw(tmp_path, "xyz"))


def rewrite(path: Path, old: str, new: str) -> None:
    """Replace text in the one member of an archive that has it."""
    with tarfile.open(path) as archive:
        members = {name.name: archive.extractfile(name).read().decode() for name in archive}
    with tarfile.open(path, "w:bz2" if path.suffix == ".bz2" else "w:gz") as archive:
        for name, text in members.items():
            add(archive, name, text.replace(old, new))


@pytest.mark.parametrize(
    ("kind", "old", "new", "message"),
    [
        ("xyz", "gdb 7\t", "gdb 8\t", "contains 1 molecules twice"),
        ("xyz", "gdb 7\t", "gbd 7\t", r"dsgdb9nsd_000007.xyz: .* second line is not that of QM9"),
        ("xyz", "-79.764152", "", r"dsgdb9nsd_000007.xyz"),
        ("xyz", "-79.764152", "-79..764152", r"dsgdb9nsd_000007.xyz: it is truncated or not in the format"),
        ("sdf", "gdb_7\n", "gdb_701\n", "the molecule 'gdb_7' is only in one of the .sdf and the .csv file"),
        ("sdf", "alpha", "alfa", "has no column 'alpha'"),
        ("sdf", "13.21", "x", "line 2 is truncated or altered"),
        ("sdf", "V2000", "V3000", "molecule 1: its version V3000"),
    ],
)
def test_a_molecule_that_cannot_be_read(tmp_path, kind, old, new, message):
    files = write_raw(tmp_path, kind)
    (path,) = [path for name, path in files.items() if name != "uncharacterized.txt"]
    rewrite(path, old, new)
    with pytest.raises(DataError, match=message):
        QM9Reader(molecules=100).read(files)


@pytest.mark.parametrize("kind", ["xyz", "sdf", "sdf-zip"])
@pytest.mark.parametrize("keep", [0.2, 0.7, 0.98])
def test_a_truncated_archive(tmp_path, kind, keep):
    files = write_raw(tmp_path, kind)
    (path,) = [path for name, path in files.items() if name != "uncharacterized.txt"]
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(DataError, match=f"{path.name} is truncated or altered"):
        QM9Reader(molecules=100).read(files)


def test_without_the_files_the_error_says_where_they_belong(root, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(DataError, match=r"To get it by hand, download https://.*3195404 \(nobody has yet") as error:
        load("qm9")
    assert str(root / "qm9" / "raw" / "uncharacterized.txt") in str(error.value)
    assert str(error.value).endswith("--sample, or load(.., sample=True).")


def refuse(*arguments, **options):
    raise OSError("no network")
