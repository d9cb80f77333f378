"""JSON of pymatgen: mlearn's energies, forces and stress; sign, order and unit of the stress found from the data."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import units

from geoeq.data import Records, join, load, load_card
from geoeq.data.formats.pymatgen_json import PymatgenReader
from geoeq.errors import DataError

SAMPLE = Path(load_card("mlearn").folder, "sample", "Si_20.json.gz")
ENTRIES = json.loads(gzip.decompress(SAMPLE.read_bytes()))
STRESS = {"stress": "-outputs.virial_stress"}


def read(path: Path, **options: object) -> Records:
    return join(PymatgenReader(**options).read({path.name: path}), str(path))


def test_entries():
    records = read(SAMPLE)
    assert len(records.ptr) - 1 == len(ENTRIES) == 20
    assert {*records.numbers.tolist()} == {14}
    np.testing.assert_array_equal(records.columns["energy"], [entry["outputs"]["energy"] for entry in ENTRIES])
    sites = [site["xyz"] for entry in ENTRIES for site in entry["structure"]["sites"]]
    np.testing.assert_allclose(records.positions, sites, atol=1e-5)
    assert records.pbc.all()


def test_the_stress_is_that_of_the_energies():
    """Along a series of strained crystals dE = V stress : d(strain), in each of the four modes of the sample.

    It is so only with the opposite sign, in kbar, and in VASP's order: the shears of modes 3, 4 and 5 are those of xy,
    xz and yz, and theirs are the components 3, 5 and 4.
    """
    for mode in (0, 3, 4, 5):
        dataset = load("mlearn", sample=True)
        names = [entry["description"] for entry in ENTRIES]
        places = [i for i, name in enumerate(names) if f"mode {mode}," in name]
        places.sort(key=lambda i: float(names[i].split("strain")[1]))
        assert len(places) == 4
        cells, energies = (
            dataset.batch(places, dtype=torch.float64).cell.numpy(),
            dataset.targets["energy"],
        )
        for first, second in ((places[0], places[1]), (places[2], places[3])):
            a, b = cells[places.index(first)], cells[places.index(second)]
            strain = np.linalg.inv((a + b) / 2) @ (b - a)
            work = sum(
                abs(np.linalg.det(cell)) * np.tensordot(dataset.targets["stress"][place], strain)
                for place, cell in ((first, a), (second, b))
            )
            assert work / 2 == pytest.approx(energies[second] - energies[first], rel=0.01), mode


def test_the_modes_shear_what_the_order_says():
    stress = dict(
        zip((entry["description"] for entry in ENTRIES), read(SAMPLE, keys=STRESS, order="vasp").columns["stress"])
    )
    for mode, component in ((3, (0, 1)), (4, (0, 2)), (5, (1, 2))):
        sheared = np.abs(stress[f"Si 2x2x2 cell, mode {mode}, strain 0.02"])
        others = [place for place in ((0, 1), (0, 2), (1, 2)) if place != component]
        assert sheared[component] > 30
        assert max(sheared[place] for place in others) < 0.01
    dataset = load("mlearn", sample=True)
    ours = dataset.targets["stress"][
        [entry["description"] for entry in ENTRIES].index("Si 2x2x2 cell, mode 0, strain 0.02")
    ]
    assert ours[0, 0] == pytest.approx(2.95 * units.GPa, rel=0.01)
    assert ours[0, 0] > 0, "pulled apart, the energy rises with the strain"


def test_a_stress_is_read_only_if_its_key_is_specified():
    survey = PymatgenReader().survey({"x": SAMPLE})
    assert {*survey.keys} == {"energy", "forces"}
    assert "A stress is read only if its key is specified" in " ".join(survey.notes)
    assert {*load(SAMPLE).targets} == {"energy", "forces"}


def change(**changes: object) -> list[object]:
    entry = json.loads(json.dumps(ENTRIES[0]))
    for path, value in changes.items():
        place = entry
        *names, last = path.split("__")
        for name in names:
            place = place[int(name) if name.isdecimal() else name]
        place[last] = value
    return [entry]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "it contains no structures"),
        ([{"a": 1}], "it has no structure of pymatgen with sites"),
        (["a"], "entry 0 .*: it has no structure of pymatgen with sites"),
        (change(structure__sites=[]), "its structure has no sites"),
        (change(structure__sites__0__species=[{"element": "Si", "occu": 0.5}]), "a site is occupied by 0.5 Si; geoeq"),
        (
            change(structure__sites__0__species=[{"element": "Si", "occu": 0.5}, {"element": "Ge", "occu": 0.5}]),
            "entry 0 .*: a site is occupied by 0.5 Si, 0.5 Ge; geoeq",
        ),
        (change(structure__sites__0__species=[{"element": "Sx", "occu": 1}]), "symbols of elements"),
        (change(structure__sites__0__species=[]), "a site is occupied by nothing"),
        (change(structure__sites__0__species=[1]), "the species of a site do not have the form of pymatgen"),
        (change(structure__lattice={}), "its structure does not have the form of pymatgen"),
        (change(structure__sites__0__abc=[1, 2]), "its structure does not have the form of pymatgen"),
        (change(outputs__forces=[[1, 2, 3]]), "forces must be 3 finite numbers"),
        (change(outputs__energy=float("nan")), "energy must be 1 finite numbers"),
    ],
)
def test_what_does_not_fit(tmp_path, content, message):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message) as caught:
        read(
            path,
            keys={"energy": "outputs.energy", "forces": "outputs.forces"}
            if content and "outputs" in content[0]
            else None,
        )
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["", "[", "3", '{"a": 1', "[" * 100_000])
def test_what_is_no_such_file(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"x.json( is truncated or altered|: it is nested|: it must be a list)"):
        read(path)


def test_nested_entries_and_a_single_one(tmp_path):
    site = {"species": [{"element": "Si", "occu": 1}], "abc": [0, 0, 0]}
    structure = {"lattice": {"matrix": (np.eye(3) * 3).tolist()}, "sites": [site]}
    step = {"structure": structure, "uncorrected_total_energy": -5.0, "force": [[1, 2, 3]]}
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"mp-1": {"mp-1-0-0": step}, "mp-2": {"mp-2-0-0": step, "mp-2-0-1": step}}))
    assert read(path, keys={"energy": "uncorrected_total_energy"}).columns["energy"].tolist() == [-5.0] * 3
    path.write_text(json.dumps({"@class": "ComputedStructureEntry", "energy": -5.0, "structure": structure}))
    assert read(path).columns["energy"].tolist() == [-5.0]
    path.write_text(f'{{"energy": -5.0, "energy": -6.0, "structure": {json.dumps(structure)}}}')
    with pytest.raises(DataError, match="the key 'energy' occurs twice"):
        read(path)
