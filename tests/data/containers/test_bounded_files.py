"""Files that announce more than they contain, or unpack to far more than their size, are refused and the readers end.

None of these tests could finish if the announced number of atoms were read, or the whole file unpacked into memory.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
from pathlib import Path

import ase.io
import numpy as np
import pytest

from geoeq.data import load_file
from geoeq.data.containers import unpack
from geoeq.data.structures import read_structures
from geoeq.errors import DataError

READERS = {"predict": read_structures, "load": load_file}
COMPRESSED = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("count", ["999999999999", "9" * 30, "9" * 5000, "10000000", "4"])
@pytest.mark.parametrize("comment", ["x", "Properties=species:S:1:pos:R:3 energy=1"])
def test_more_atoms_than_lines(read, count, comment, tmp_path):
    path = tmp_path / "x.xyz"
    path.write_text(f"{count}\n{comment}\nH 0 0 0\nH 0 0 1\n")
    with pytest.raises(DataError, match=r"x\.xyz") as caught:
        read(path)
    assert len(str(caught.value)) < 500


DUMP = "ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n{}\nITEM: BOX BOUNDS pp pp pp\n0 9\n0 9\n0 9\n"
DUMP += "ITEM: ATOMS id type x y z\n"
ANNOUNCED = {
    "x.lammpstrj": DUMP + "1 1 0 0 0\n",
    "x.gro": "title\n{}\n    1WAT     O1    1   0.0   0.0   0.0\n 1 1 1\n",
    "x.xsf": "ATOMS\n1 0 0 0\nPRIMVEC\n1 0 0\n0 1 0\n0 0 1\nPRIMCOORD\n{} 1\n1 0 0 0\n",
    "x.cube": "a\nb\n{} 0 0 0\n1 1 0 0\n1 0 1 0\n1 0 0 1\n1 0 0 0 0\n",
    "x.mol": "t\n\n\n{:.3} 0  0  0  0  0  0  0  0  0999 V2000\n    0.0       0.0       0.0    H   0  0\nM  END\n",
    "POSCAR": "H\n1.0\n9 0 0\n0 9 0\n0 0 9\nH\n{}\nCartesian\n0 0 0\n",
}


@pytest.mark.parametrize("name", ANNOUNCED)
def test_other_formats_that_announce_atoms(name, tmp_path):
    path = tmp_path / name
    path.write_text(ANNOUNCED[name].format("999999999999"))
    with pytest.raises(DataError, match=name):
        read_structures(path)


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("kind", COMPRESSED)
def test_a_bomb(read, kind, tmp_path, monkeypatch):
    monkeypatch.setattr(unpack, "_FREE_BYTES", 1 << 16)
    path = tmp_path / f"x.xyz.{kind}"
    path.write_bytes(COMPRESSED[kind](b"1\nx\nH 0 0 0\n" * 100_000))
    assert path.stat().st_size * 100 < 1_200_000
    with pytest.raises(DataError, match=rf"x\.xyz\.{kind} unpacks to more than 100 times its size"):
        read(path)


def test_a_bomb_is_refused_before_its_structures_are_parsed(tmp_path):
    """Valid structures, so many that a reader that parses them first needs a minute."""
    path = tmp_path / "x.xyz.gz"
    path.write_bytes(gzip.compress(b"1\nx\nH 0 0 0\n" * 3_000_000))
    with pytest.raises(DataError, match=r"x\.xyz\.gz unpacks to more than 100 times its size"):
        next(unpack.read_lines(path))


def test_time_steps_are_no_counts_of_atoms(tmp_path):
    path = tmp_path / "x.lammpstrj"
    dump = DUMP.format(1).replace("TIMESTEP\n0", "TIMESTEP\n2000000000").replace("type", "element")
    path.write_text(dump + "1 H 0 0 0\n")
    (structure,) = read_structures(path)
    assert len(structure.atoms) == 1


@pytest.mark.parametrize("part", ["type.raw", "type_map.raw", "set.000/coord.npy"])
def test_parts_of_a_folder_that_are_pipes(part, tmp_path):
    (tmp_path / "set.000").mkdir()
    (tmp_path / "type.raw").write_text("0\n")
    (tmp_path / "type_map.raw").write_text("H\n")
    np.save(tmp_path / "set.000" / "coord.npy", np.zeros((1, 3)))
    (tmp_path / part).unlink()
    os.mkfifo(tmp_path / part)
    with pytest.raises(DataError, match=rf"{part}( is a pipe|: it is missing)|nothing below it has"):
        load_file(tmp_path)


@pytest.mark.parametrize("kind", COMPRESSED)
def test_compressed_structures_are_read(kind, tmp_path):
    path = tmp_path / f"x@2.xyz.{kind}"  # ASE takes @2 for an index
    path.write_bytes(COMPRESSED[kind](b"2\nx\nO 0 0 0\nH 0 0 1\n"))
    (structure,) = read_structures(path)
    assert structure.atoms.get_chemical_symbols() == ["O", "H"]


def test_what_is_read_is_what_ase_reads(tmp_path):
    """Trajectories, cells and forces are the same through the bounded file as through ASE's own."""
    atoms = ase.Atoms("OHH", np.random.default_rng(0).normal(size=(3, 3)), cell=[4, 5, 6], pbc=True)
    for name in ("x.xyz", "x.extxyz", "x.traj", "x.cif", "x.json", "POSCAR", "x.xsf", "x.gen"):
        path = Path(tmp_path, name)
        ase.io.write(path, atoms)
        (structure,) = read_structures(path)
        assert structure.atoms == ase.io.read(path), name
