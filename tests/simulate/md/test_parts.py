"""The parts of a simulation: settings, radial distributions, drift, progress, picture."""

from __future__ import annotations

import io

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.geometry.rdf import get_rdf
from rich.console import Console

from geoeq.errors import InputError
from geoeq.simulate import MDSettings, radial_distribution
from geoeq.simulate.md.md_plot import draw_summary
from geoeq.simulate.md.md_progress import MDProgress
from geoeq.simulate.md.settings import settings_from_text
from geoeq.simulate.md.summary import drift, summarize
from geoeq.simulate.md.thermo import with_deviation

OPTIONS = {
    "ensemble": "npt",
    "temperature": "300K",
    "timestep": "0.5fs",
    "tau": "0.1ps",
    "pressure": "1bar",
    "pressure_tau": "1ps",
    "max_temperature": None,
    "time": None,
    "skin": "0.05nm",
    "steps": 7,
    "thermostat": None,
    "barostat": "full",
    "velocities": None,
    "seed": 3,
    "log_every": 1,
    "frame_every": 2,
    "save_every": 3,
}


def test_settings_from_a_command_line():
    settings, skin = settings_from_text(OPTIONS)
    assert skin == pytest.approx(0.5)
    assert (settings.temperature, settings.timestep, settings.steps, settings.seed) == (300.0, 0.5, 7, 3)
    assert (settings.tau, settings.pressure_tau) == (pytest.approx(100.0), pytest.approx(1000.0))
    assert settings.pressure == pytest.approx(1e-4 / 160.21766208)
    assert (settings.coupling, settings.hottest) == ("nose-hoover", 1e4)


@pytest.mark.parametrize(
    ("time", "timestep", "steps"),
    [
        ("10ps", "0.5fs", 20000),
        ("1ns", "2fs", 500000),
        ("0.3fs", "0.1fs", 3),
        ("1ps", "0.3fs", 3334),
        ("1fs", "2fs", 1),
    ],
)
def test_a_time_is_so_many_steps(time, timestep, steps):
    assert settings_from_text({**OPTIONS, "time": time, "timestep": timestep})[0].steps == steps


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"ensemble": "nvt", "temperature": None}, "nvt needs a temperature above 0 K, such as 300K."),
        ({"ensemble": "nvt", "temperature": 0.0}, "nvt needs a temperature above 0 K, such as 300K."),
        ({"ensemble": "npt"}, "npt needs a pressure, such as 1bar."),
        ({"ensemble": "npt", "pressure": 0.0, "thermostat": "langevin"}, "npt uses the thermostat nose-hoover"),
        ({"ensemble": "nve", "thermostat": "bussi"}, "nve has no thermostat"),
        ({"ensemble": "nvt", "barostat": "full"}, "omit the barostat"),
        ({"ensemble": "nvtt"}, r"No ensemble is called 'nvtt'\. Did you mean 'nvt'\?"),
        ({"ensemble": "nvt", "thermostat": "nosehoover"}, r"Did you mean 'nose-hoover'\?"),
        ({"temperature": float("nan")}, "temperature is nan K"),
        ({"timestep": -1.0}, r"timestep is -1\.0 fs"),
        ({"pressure": float("inf"), "ensemble": "npt"}, "pressure is inf"),
        ({"max_temperature": 0.0}, "max_temperature is 0.0 K"),
        ({"frame_every": 0}, "frame_every is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_settings_that_cannot_be(changed, words):
    with pytest.raises(InputError, match=words):
        MDSettings(**{"ensemble": "nve", "steps": 1, "temperature": 300.0, **changed})


def test_what_decides_has_its_unit():
    settings = MDSettings("nvt", 10, temperature=2000.0)
    assert settings.hottest == 20000.0
    assert settings.decides()["temperature [K]"] == 2000.0
    assert set(settings.to_dict()) - set(settings.decides()) == {"steps", "save every"}


def test_shells_of_a_crystal():
    atoms = bulk("Ar", a=5.3, cubic=True)
    found = radial_distribution([atoms, atoms], reach=8.0, bins=400)
    assert found.normalized
    width = found.distances[1] - found.distances[0]
    density = len(atoms) / atoms.get_volume()
    shells = 4 / 3 * np.pi * ((found.distances + width / 2) ** 3 - (found.distances - width / 2) ** 3)
    neighbors = found.values["Ar-Ar"] * density * shells
    assert neighbors.sum() == pytest.approx(12 + 6 + 24 + 12)
    for count, distance in ((12, 5.3 / 2**0.5), (6, 5.3), (24, 5.3 * 1.5**0.5), (12, 5.3 * 2**0.5)):
        assert neighbors[np.abs(found.distances - distance) < 2 * width].sum() == pytest.approx(count)


def test_it_is_the_distribution_of_ase():
    generator = np.random.default_rng(0)
    numbers = generator.choice([8, 11, 17], size=300)
    atoms = Atoms(numbers, cell=[20, 21, 22], pbc=True, scaled_positions=generator.random((300, 3)))
    found = radial_distribution([atoms], reach=8.0, bins=40)
    for pair, values in found.values.items():
        elements = [Atoms(symbol).numbers[0] for symbol in pair.split("-")]
        expected, distances = get_rdf(atoms, 8.0, 40, elements=elements)
        np.testing.assert_allclose(distances, found.distances)
        np.testing.assert_allclose(values, expected, rtol=1e-9)
        assert values[20:].mean() == pytest.approx(1, abs=0.06)  # nothing is ordered
    assert len(found.values) == 3


def test_distances_in_a_molecule():
    found = radial_distribution([molecule("CH4")], reach=3.0, bins=300)
    assert not found.normalized
    assert set(found.values) == {"H-H", "H-C"}
    width = found.distances[1] - found.distances[0]
    assert found.values["H-C"].sum() * width == pytest.approx(1)
    assert found.values["H-H"].sum() * width == pytest.approx(3)
    assert found.distances[found.values["H-C"].argmax()] == pytest.approx(1.09, abs=0.01)


def test_one_atom_has_no_distances_and_no_frames_are_refused():
    assert radial_distribution([Atoms("Ar")]).values == {}
    with pytest.raises(InputError, match="there are none"):
        radial_distribution([])


def rows(count=21, slope=2e-3):
    """Of a run whose total energy rises by so much in a ps."""
    return [
        {
            "step": step,
            "time [fs]": 500.0 * step,
            "potential energy [eV/atom]": -1.0,
            "total energy [eV/atom]": 0.5 * slope * step,
            "temperature [K]": 300.0 + (-1) ** step,
            "pressure [GPa]": 0.1,
            "ns/day": 5.0,
        }
        for step in range(count)
    ]


def test_drift_is_the_slope_of_what_is_conserved():
    assert drift(rows(), MDSettings("nve", 20)) == pytest.approx(2e-3)
    assert drift(rows(2), MDSettings("nve", 20)) is None
    langevin = MDSettings("nvt", 20, temperature=300.0)
    assert drift(rows(), langevin) is None
    chain = [{**row, "conserved energy [eV/atom]": 3e-3 * row["time [fs]"] / 1000} for row in rows()]
    assert drift(chain, langevin) == pytest.approx(3e-3)


def test_means_are_those_of_the_second_half():
    found = summarize(
        [{**row, "temperature [K]": 300.0 if row["step"] >= 10 else 9e9} for row in rows()], MDSettings("nve", 20)
    )
    assert found["means"]["temperature [K]"] == [300.0, 0.0]
    assert found["ns/day"] == 5.0
    assert "volume [Å^3/atom]" not in found["means"]
    assert summarize(rows()[:1], MDSettings("nve", 20))["means"]["temperature [K]"][1] is None


@pytest.mark.parametrize(
    ("mean", "deviation", "text"),
    [
        (299.83, 4.21, "299.8 ± 4.2"),
        (-0.00015, 0.033, "0.000 ± 0.033"),
        (0.00015, 0.033, "0.000 ± 0.033"),
        (1234.5, 120.0, "1234 ± 120"),
        (2.5, 0.0, "2.5 ± 0"),
        (2.5, None, "2.5 (one record, no deviation)"),
    ],
)
def test_digits_are_those_of_the_spread(mean, deviation, text):
    assert with_deviation(mean, deviation) == text


@pytest.mark.parametrize("count", [1, 21])
def test_a_picture_is_drawn(count, tmp_path):
    radial = radial_distribution([bulk("Ar", a=5.3)])
    for place, settings in enumerate((MDSettings("nve", 20), MDSettings("npt", 20, temperature=300.0, pressure=0.0))):
        draw_summary(tmp_path / f"{place}.png", rows(count), radial, settings, "title", drift(rows(count), settings))
        assert (tmp_path / f"{place}.png").stat().st_size > 10000


def test_progress_elsewhere_than_on_a_terminal():
    text = io.StringIO()
    with MDProgress(Console(file=text, width=200), MDSettings("nve", 3)) as progress:
        for step in range(4):
            progress(step, rows()[step])
    assert text.getvalue() == "step 3 of 3  299 K  -1.0000 eV/atom  5 ns/day\n"


def test_progress_on_a_terminal(monkeypatch):
    text = io.StringIO()
    console = Console(file=text, width=120, force_terminal=True)
    with MDProgress(console, MDSettings("nve", 3), done=1) as progress:
        progress(3, rows()[3])
    assert "3/3" in text.getvalue()
    assert "5 ns/day" in text.getvalue()
