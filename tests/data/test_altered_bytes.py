"""Every reader on altered files: valid data, or an error of geoeq that names the file; nothing else, and always an end.

The default is a few alterations for each format. ``GEOEQ_FUZZ=2000 pytest tests/data/test_altered_bytes.py`` tests that
many seeds; ``GEOEQ_FUZZ_FIRST`` is the first of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import re
import resource
import signal
import tarfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import ase.io
import h5py
import lmdb
import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from torch_geometric.data import Data

from geoeq.data import join, load_card, load_file, read_card
from geoeq.data.catalysts import OpenCatalystReader
from geoeq.data.containers.lmdb_file import LMDBFile
from geoeq.data.molecules.conformers import read_smiles
from geoeq.data.pickles import read_pickle
from geoeq.data.qm7 import QM7Reader
from geoeq.data.qm9 import QM9Reader
from geoeq.data.store import write_store
from geoeq.data.store_reader import StoreReader
from geoeq.data.structures import read_structures
from geoeq.errors import GeoeqError
from geoeq.models import EGNN, load_checkpoint, save_checkpoint
from geoeq.training.parsing import find_recipe, read_recipe

FIRST, COUNT = int(os.environ.get("GEOEQ_FUZZ_FIRST", "0")), int(os.environ.get("GEOEQ_FUZZ", "12"))

#: No input may take more memory than this beyond what the process has, nor more seconds; both are far from normal use.
MEMORY, SECONDS = 6 << 30, 60


@dataclass(frozen=True)
class Format:
    """A function that writes small valid files and returns one to read, and the function that reads it."""

    write: Callable[[Path], Path]
    read: Callable[[Path], object]


def frames() -> list[ase.Atoms]:
    random = np.random.default_rng(0)
    found = []
    for size in (3, 2):
        atoms = ase.Atoms(
            "OHH"[:size], 3 * np.eye(3)[:size] + random.normal(size=(size, 3)) / 10, cell=[9, 8, 7], pbc=True
        )
        forces = random.normal(size=(size, 3))
        atoms.calc = SinglePointCalculator(atoms, energy=-1.5 * size, forces=forces, stress=random.normal(size=6))
        found.append(atoms)
    return found


def by_ase(name: str, count: int = 2, **options: object) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        ase.io.write(folder / name, frames()[:count], **options)
        return folder / name

    return write


def xyz(folder: Path) -> Path:
    text = "".join(f"2\nenergy={i}.5 charge=1\nO 0 0 0\nH 0 {i} 1.0\n" for i in range(3))
    return text_file("x.xyz", text)(folder)


def text_file(name: str, text: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_text(text, encoding="utf-8")
        return folder / name

    return write


SDF = "".join(
    f"gdb_{i}\n  test  3D\n\n  2  1  0  0  0  0  0  0  0  0999 V2000\n"
    "    0.0000    0.0000    0.1000 O   0  0  0  0  0  0  0  0  0  0  0  0\n"
    "    0.0000    0.0000    1.1000 H   0  0  0  0  0  0  0  0  0  0  0  0\n"
    "  1  2  1  0  0  0  0\nM  CHG  1   1  -1\nM  END\n$$$$\n"
    for i in (1, 2)
)


def npz(folder: Path) -> Path:
    values = {"R": np.random.default_rng(0).normal(size=(4, 3, 3)), "z": np.array([8, 1, 1]), "E": np.arange(4.0)}
    np.savez_compressed(folder / "x.npz", **values, r_unit="Ang", e_unit="kcal/mol")
    return folder / "x.npz"


def hdf5(folder: Path) -> Path:
    with h5py.File(folder / "x.h5", "w") as file:
        group = file.create_group("a/water")
        group["coordinates"] = np.random.default_rng(0).normal(size=(4, 3, 3))
        group["species"] = np.array([b"O", b"H", b"H"])
        group.create_dataset("energies", data=np.arange(4.0), compression="gzip")
    return folder / "x.h5"


def database(folder: Path) -> Path:
    with connect(folder / "x.db") as file:
        for atoms in frames():
            file.write(atoms, name="water", data={"charges": np.zeros(len(atoms))})
    return folder / "x.db"


def pymatgen(folder: Path) -> Path:
    sites = [{"species": [{"element": "Si", "occu": 1}], "abc": [i / 4] * 3} for i in (0, 1)]
    lattice = {"matrix": (5.4 * np.eye(3)).tolist()}
    outputs = {"energy": -10.5, "forces": [[0.0, 0.1, 0.2]] * 2}
    entries = [{"structure": {"lattice": lattice, "sites": sites}, "outputs": outputs}] * 2
    return text_file("x.json", json.dumps(entries))(folder)


def deepmd(folder: Path) -> Path:
    system = folder / "system"
    (system / "set.000").mkdir(parents=True)
    (system / "type.raw").write_text("0 1 1\n")
    (system / "type_map.raw").write_text("O\nH\n")
    random = np.random.default_rng(0)
    for name, width in {"coord": 9, "force": 9}.items():
        np.save(system / "set.000" / f"{name}.npy", random.normal(size=(3, width)))
    np.save(system / "set.000" / "energy.npy", np.arange(3.0))
    np.save(system / "set.000" / "box.npy", np.tile((9 * np.eye(3)).reshape(9), (3, 1)))
    return system


def qm7(folder: Path) -> Path:
    values = {
        "n_atoms": np.uint8([3, 2]),
        "z": np.uint8([8, 1, 1, 7, 1]),
        "pos_micro_angstrom": np.arange(15).reshape(5, 3),
    }
    np.savez_compressed(folder / "q.npz", **values, pbe0_milli_kcal=np.arange(2), dftb_nano_kcal=np.arange(2))
    return folder / "q.npz"


QM9_VALUES = "1.0 2.0 3.0 0.5 6.0 -0.3 0.1 0.4 19.0 0.02 -76.4 -76.3 -76.2 -76.5 6.0"
QM9_XYZ = f"2\ngdb {{}}\t{QM9_VALUES}\nO 0.0 0.0 1.0*^-6 -0.5\nH 0.0 0.0 1.0 0.5\n1341.307\nO\tO\nInChI=1S\n"
QM9_CSV = "mol_id,A,B,C,mu,alpha,homo,lumo,gap,r2,zpve,u0,u298,h298,g298,cv\n"
QM9_CSV += "".join(f"gdb_{i},{QM9_VALUES.replace(' ', ',')}\n" for i in (1, 2))


def archive(name: str, members: dict[str, str]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        with tarfile.open(folder / name, "w:" + name.rpartition(".")[2].removeprefix("tar")) as file:
            for member, text in members.items():
                entry = tarfile.TarInfo(member)
                entry.size = len(text.encode())
                file.addfile(entry, BytesIO(text.encode()))
        return folder / name

    return write


def qm9_sample(folder: Path) -> Path:
    card = load_card("qm9")
    lines = Path(card.folder, "sample", "qm9_official_100.xyz").read_text().splitlines()
    return text_file("q.xyz", "\n".join(lines[: 2 + int(lines[0])]) + "\n")(folder)


def store(folder: Path) -> Path:
    arrays = {
        "ptr": np.array([0, 3, 5]),
        "positions": np.arange(15.0).reshape(5, 3),
        "numbers": np.uint8([8, 1, 1, 7, 1]),
    }
    write_store(folder / "store", {**arrays, "target.energy": np.arange(2.0), "node.charge": np.zeros(5)}, {"a": 1})
    return folder / "store" / "index.json"


def graph(size: int) -> Data:
    return Data(
        pos=torch.rand(size, 3), atomic_numbers=torch.ones(size), cell=9 * torch.eye(3)[None], natoms=size,
        y=-1.5, force=torch.rand(size, 3), tags=torch.ones(size), fixed=torch.zeros(size), sid=1, fid=size,
    )  # fmt: skip


def catalysts(folder: Path) -> Path:
    with lmdb.open(str(folder / "x.lmdb"), subdir=False, map_size=1 << 24) as file, file.begin(write=True) as change:
        for i in range(2):
            change.put(str(i).encode(), pickle.dumps(graph(i + 2)))
        change.put(b"length", pickle.dumps(2))
    (folder / "x.lmdb-lock").unlink()
    return folder / "x.lmdb"


def lmdb_values(path: Path) -> object:
    with LMDBFile(path) as file:
        return [file.get(str(i).encode()) for i in range(3)]


def pickled(folder: Path) -> Path:
    (folder / "x.pkl").write_bytes(pickle.dumps([graph(2), {"a": np.arange(3), "b": ("text", 1.5)}], protocol=4))
    return folder / "x.pkl"


def torch_file(folder: Path) -> Path:
    torch.save({"a": torch.arange(4.0), "b": [graph(2)]}, folder / "x.pt")
    return folder / "x.pt"


def checkpoint(folder: Path) -> Path:
    model = EGNN.example()
    model.set_elements([1, 8])
    save_checkpoint(model, folder / "run", {"seed": 1})
    return folder / "run"


def card(folder: Path) -> Path:
    return text_file("card.yaml", Path(load_card("qm9").folder, "card.yaml").read_text(encoding="utf-8"))(folder)


def recipe(folder: Path) -> Path:
    return text_file("r.yaml", find_recipe("qm7/egnn").read_text(encoding="utf-8"))(folder)


def through(reader: object) -> Callable[[Path], object]:
    def read(path: Path) -> object:
        records = reader.read({path.name: path})
        records = join(records, str(path)) if isinstance(records, Iterator) else records
        records.check(str(path))
        return records

    return read


DUMP = "ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n2\nITEM: BOX BOUNDS pp pp pp\n0 9\n0 9\n0 9\n"
DUMP += "ITEM: ATOMS id type element x y z\n1 1 O 0 0 0\n2 2 H 0 0 1\n"
WATER_XYZ = {f"dsgdb9nsd_00000{i}.xyz": QM9_XYZ.format(i) for i in (1, 2)}
FORMATS = {
    "xyz": Format(xyz, load_file),
    "xyz in predict": Format(xyz, read_structures),
    "extxyz": Format(by_ase("x.extxyz"), load_file),
    "extxyz in predict": Format(by_ase("x.extxyz"), read_structures),
    "extxyz.gz": Format(by_ase("x.extxyz.gz", format="extxyz"), load_file),
    "extxyz.gz in predict": Format(by_ase("x.extxyz.gz", format="extxyz"), read_structures),
    "sdf": Format(text_file("x.sdf", SDF), load_file),
    "sdf in predict": Format(text_file("x.sdf", SDF), read_structures),
    "cif": Format(by_ase("x.cif"), load_file),
    "poscar": Format(by_ase("POSCAR", count=1, format="vasp"), read_structures),
    "lammps dump": Format(
        text_file("x.lammpstrj", DUMP), read_structures),
    "traj": Format(by_ase("x.traj"), load_file),
    "json of ase": Format(by_ase("x.json"), load_file),
    "npz": Format(npz, load_file),
    "hdf5": Format(hdf5, load_file),
    "ase database": Format(database, load_file),
    "pymatgen": Format(pymatgen, load_file),
    "deepmd": Format(deepmd, load_file),
    "qm7": Format(qm7, through(QM7Reader())),
    "qm9 sample": Format(qm9_sample, through(QM9Reader(1, drop_uncharacterized=False))),
    "qm9 xyz": Format(archive("q.xyz.tar.bz2", WATER_XYZ), through(QM9Reader(2, False))),
    "qm9 xyz, plain": Format(archive("q.xyz.tar", WATER_XYZ), through(QM9Reader(2, False))),
    "qm9 sdf and csv": Format(archive("q.tar", {"g.sdf": SDF, "g.csv": QM9_CSV}), through(QM9Reader(2, False))),
    "store": Format(store, through(StoreReader())),
    "catalysts": Format(catalysts, through(OpenCatalystReader("s2ef", energy="total"))),
    "lmdb": Format(catalysts, lmdb_values),
    "pickle": Format(pickled, read_pickle),
    "torch": Format(torch_file, read_pickle),
    "checkpoint": Format(checkpoint, load_checkpoint),
    "card": Format(card, read_card),
    "recipe": Format(recipe, read_recipe),
    "smiles": Format(text_file("x.csv", "# a list\nCCO ethanol\nO water\n"), read_smiles),
}  # fmt: skip


#: Formats whose refusals may quote errors of ASE, or of Python for an impossible step of a pickle; those of geoeq's own
#: readers tell no Python internals.
BY_OTHERS = {
    name for name, form in FORMATS.items() if form.read is read_structures or name in ("cif", "traj", "json of ase")
} | {"sdf", "qm9 sample", "qm9 sdf and csv", "ase database", "catalysts", "pickle", "torch"}
INTERNAL = re.compile(
    r"NoneType|has no attribute|not subscriptable|not iterable|index out of|unhashable|(Attribute|Index|Type)Error"
)


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Make too much memory or time an error instead of the end of the machine."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"it takes more than {SECONDS} s")

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, stop)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, limits[1]))
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, limits)


def refusal(form: Format, path: Path) -> str | None:
    """The message of a refusal; None if the file is read."""
    try:
        with bounded(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            form.read(path)
    except GeoeqError as error:
        return str(error)
    return None


def victims(path: Path) -> list[Path]:
    """The files that are altered: the file itself, or all in its folder if it is one of several."""
    several = path.parent if path.name == "index.json" else path
    return sorted(file for file in several.rglob("*") if file.is_file()) if several.is_dir() else [path]


@pytest.mark.parametrize("name", FORMATS)
def test_altered_bytes_are_read_or_refused_by_name(name, tmp_path, altered):
    form = FORMATS[name]
    path = form.write(tmp_path)
    assert refusal(form, path) is None
    files = victims(path)
    contents = {file: file.read_bytes() for file in files}
    for seed in range(FIRST, FIRST + COUNT):
        random = np.random.default_rng(seed)
        file = files[random.integers(len(files))]
        content = altered(contents[file], random)
        file.write_bytes(content)
        try:
            message = refusal(form, path)
        except BaseException as error:
            kept = Path(os.environ.get("GEOEQ_FUZZ_KEEP", tmp_path)) / f"{name.replace(' ', '_')}-{seed}-{file.name}"
            kept.write_bytes(content)
            raise AssertionError(f"{name}, seed {seed}: {type(error).__name__}, see {kept}") from error
        if message is not None:
            named = {path.name, path.parent.name, *(other.name for other in files)}
            assert any(part in message for part in named), (seed, message)
            assert len(message) < 2000, (seed, message)
            assert name in BY_OTHERS or not INTERNAL.search(message), (seed, message)
        file.write_bytes(contents[file])


#: Format, bytes, what they become, and the reason of the refusal.
REASONS = [
    ("xyz", b"2\nenergy=0.5", b"3\nenergy=0.5", "structure 0 .*: atom 2 has 1 columns instead of 4"),
    ("xyz", b"O 0 0 0", b"Qq 0 0 0", "there is no element 'Qq'"),
    ("xyz", b"O 0 0 0", b"O 0 0 nan", "structure 0: .*nan"),
    ("xyz in predict", b"O 0 0 0", b"Qq 0 0 0", "there is no element 'Qq'"),
    ("xyz in predict", b"O 0 0 0", b"O 0 0 x", "could not convert string to float: 'x'"),
    (
        "xyz in predict",
        b"2\nenergy=0.5",
        b"2147483648\nenergy=0.5",
        "line 1 must be a number of atoms, not '2147483648'",
    ),
    ("extxyz", b"pos:R:3", b"pos:R:2", "structure 0 .*: 'pos' must have 3 columns, not 2"),
    ("extxyz", b"pos:R:3", b"pos:R:999999999999", "Properties has 'pos:R:999999999999'"),
    ("extxyz in predict", b"pos:R:3", b"pos:R:999999", "Properties has 'pos:R:999999'"),
    ("poscar", b"1   2", b"1   2147483648", "it announces 2147483648 atoms"),
    ("lammps dump", b"ATOMS\n2", b"ATOMS\n999999999999", "ends before the number of lines that it announces"),
    ("json of ase", b"{", b"[" * 5000, "it is nested"),
    ("pymatgen", b'"occu": 1', b'"occu": [', "it is not JSON"),
    ("deepmd", b"0 1 1", b"0 1 7", "the type 7, but there are only 2 elements"),
    ("deepmd", b"0 1 1", b"0 1 x", "type.raw: it must contain the types of the atoms as integers"),
    ("deepmd", b"O\nH", b"O\n\xff", "type_map.raw: this is not a text file in UTF-8"),
    ("qm9 sample", b"gap=", b"gip=", "molecule 1 has no 'gap'"),
    ("store", b'"shape": [', b'"shape": 2, "x": [', "the entry '.*' is not that of an array"),
    ("checkpoint", b'"layers": ', b'"layers": -', "layers"),
    ("recipe", b"dataset:", b"datset:", "no setting 'datset'. Did you mean 'dataset'"),
    ("smiles", b"CCO", b"\xff", "this is not a text file in UTF-8"),
]


@pytest.mark.parametrize(("name", "old", "new", "reason"), REASONS)
def test_the_reason_of_a_refusal(name, old, new, reason, tmp_path):
    form = FORMATS[name]
    path = form.write(tmp_path)
    (file,) = [file for file in victims(path) if old in file.read_bytes()]
    file.write_bytes(file.read_bytes().replace(old, new, 1))
    assert re.search(reason, refusal(form, path) or "it is read")
