"""A cache is made once, by whoever comes first, where it can be written."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from geoeq.data import Records, load, load_card, prepare
from geoeq.data.arrays import to_arrays
from geoeq.data.preparation.cache import cache_folder
from geoeq.errors import DataError
from geoeq.resources import cache_root


def test_where_the_cache_is(root, tmp_path, monkeypatch):
    assert cache_root() == root
    assert cache_root(tmp_path / "other") == tmp_path / "other"
    monkeypatch.delenv("GEOEQ_CACHE")
    assert cache_root() == Path.home() / ".cache" / "geoeq"
    assert load("qm7", sample=True, root=tmp_path / "other").folder.is_relative_to(tmp_path / "other")


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be written .* Set the environment variable GEOEQ_CACHE"):
        load("qm7", root=tmp_path / "file")


def test_the_name_of_the_cache_follows_what_decides_what_is_in_it():
    card = load_card("qm9")
    targets = {"gap": card.targets["gap"]}
    folders = {
        cache_folder(card, False),
        cache_folder(card, True),
        cache_folder(replace(card, targets=targets), False),
        cache_folder(replace(card, options={"molecules": 5}), False),
        cache_folder(replace(card, sources=card.sources[:1]), False),
    }
    assert len(folders) == 5
    assert cache_folder(replace(card, title="another"), False) in folders


def test_several_processes_at_once(root):
    code = "import geoeq.data; print(len(geoeq.data.load('nbody', sample=True)))"
    processes = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in processes] == ["100", "100"]
    assert len(list(root.glob("nbody/sample-*"))) == 1


def test_work_of_killed_preparations_of_a_sample_is_deleted(tmp_path):
    for name in (".sample-0123456789ab-work", ".full-0123456789ab-work"):
        (tmp_path / "qm7" / name / "whole").mkdir(parents=True)
    load("qm7", sample=True, root=tmp_path)
    left = {path.name for path in (tmp_path / "qm7").iterdir() if path.name.endswith("-work")}
    assert left == {".full-0123456789ab-work"}, "the work on a whole data set can be resumed"


def test_no_sample():
    with pytest.raises(DataError, match="'qm7' has no sample"):
        prepare(replace(load_card("qm7"), sample=None), sample=True)


def records(**changes: object) -> Records:
    whole = Records(
        positions=np.zeros((3, 3)),
        ptr=np.array([0, 1, 3]),
        numbers=np.array([1, 6, 8]),
        columns={"pbe0": np.zeros(2)},
        nodes={"charge": np.zeros(3)},
    )
    return replace(whole, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ptr": np.array([0])}, "contains no structures"),
        ({"ptr": np.array([0, 1, 2])}, "do not divide the 3 atoms"),
        ({"ptr": np.array([0, 3, 3])}, "do not divide the 3 atoms"),
        ({"ptr": np.array([1, 2, 3])}, "do not divide the 3 atoms"),
        ({"numbers": np.ones(2)}, "'numbers' has 2 rows instead of 3"),
        ({"nodes": {"charge": np.ones(2)}}, "'charge' has 2 rows instead of 3"),
        ({"cell": np.ones((3, 3, 3))}, "'cell' has 3 rows instead of 2"),
        ({"columns": {"pbe0": np.ones(4)}}, r"'pbe0' has 4 rows instead of 2 \(structures\) or 3 \(atoms\)"),
        ({"columns": {"pbe0": np.ones(3)}}, "the column 'pbe0' has 3 rows, but a quantity per graph needs 2"),
        ({"columns": {"pbe": np.ones(2)}}, r"No column is called 'pbe0'. Did you mean 'pbe'\?"),
    ],
)
def test_records_that_do_not_fit_together(changes, message):
    with pytest.raises(DataError, match=message):
        to_arrays(load_card("qm7"), records(**changes))
    assert set(to_arrays(load_card("qm7"), records())) == {
        "positions",
        "ptr",
        "numbers",
        "node.charge",
        "target.atomization_energy",
    }
