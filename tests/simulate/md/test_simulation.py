"""Simulations that are killed go on to the same bits; those that cannot go on say so and leave their last frame."""

from __future__ import annotations

import csv
import resource
import signal

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk, fcc111
from ase.constraints import FixAtoms
from ase.io import read
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet

from geoeq.errors import CheckpointError, InputError, SimulationError
from geoeq.files import AppendLog, load_state, save_state
from geoeq.simulate import MDSettings, Simulation
from geoeq.simulate.md.integrators import start_velocities

COMMON = {"temperature": 40.0, "timestep": 2.0, "log_every": 2, "frame_every": 3, "save_every": 7}
INTEGRATORS = {
    "nve": {"ensemble": "nve"},
    "langevin": {"ensemble": "nvt"},
    "bussi": {"ensemble": "nvt", "thermostat": "bussi"},
    "nose-hoover": {"ensemble": "nvt", "thermostat": "nose-hoover"},
    "npt": {"ensemble": "npt", "pressure": 1e-3},
    "npt full": {"ensemble": "npt", "pressure": 1e-3, "barostat": "full"},
}


class Killed(BaseException):
    """Nothing in the program expects it, as nothing expects SIGKILL."""


def crystal(calculator=None):
    atoms = bulk("Ar", a=5.3, cubic=True)
    atoms.rattle(0.1, seed=1)
    atoms.calc = calculator
    return atoms


def settings(steps=30, **changed):
    return MDSettings(**{"ensemble": "nve", "steps": steps, **COMMON, **changed})


def written(folder):
    """What two runs must have in common: the log without its column of speed, the frames as bytes, and the state."""
    with (folder / "thermo.csv").open(newline="") as file:
        rows = [row[:-1] for row in csv.reader(file)]
    frames = [(folder / name).read_bytes() for name in ("trajectory.extxyz", "last.extxyz")]
    return rows, frames, load_state(folder / "state.pt")


def same(first, second):
    assert first[:2] == second[:2]
    one, other = ({**state, **state["integrator"]} for state in (first[2], second[2]))
    for state in (one, other):
        del state["sizes"], state["integrator"]  # the speed has more digits or fewer
    assert set(one) == set(other)
    for name, value in one.items():
        assert torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name], name


def kill_at(place):
    def report(step, row):
        if step == place:
            raise Killed

    return report


def test_a_run_on_a_full_disk_keeps_its_state_and_resumes_to_the_same_bits(ours, tmp_path):
    Simulation(crystal(ours()), settings(), tmp_path / "whole").run()
    folder = tmp_path / "full"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(step, row):  # from now on files cannot grow
        if step == 17:
            resource.setrlimit(resource.RLIMIT_FSIZE, ((folder / "trajectory.extxyz").stat().st_size, limits[1]))

    try:
        with pytest.raises(SimulationError, match=r"After step 17 .*trajectory\.extxyz.*'.*full' is intact"):
            Simulation(crystal(ours()), settings(), folder).run(report=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert load_state(folder / "state.pt")["step"] == 14
    Simulation(crystal(ours()), settings(), folder).run()
    same(written(tmp_path / "whole"), written(folder))


@pytest.mark.parametrize("name", INTEGRATORS)
def test_a_killed_run_goes_on_to_the_same_bits(name, ours, tmp_path):
    chosen = settings(**INTEGRATORS[name])
    Simulation(crystal(ours()), chosen, tmp_path / "whole").run()
    folder = tmp_path / "killed"
    for place in (0, 1, 9, 23):
        with pytest.raises(Killed):
            Simulation(crystal(ours()), chosen, folder).run(report=kill_at(place))
        with (folder / "trajectory.extxyz").open("a") as file:
            file.write("4\nhalf a fra" * 10000)
    Simulation(crystal(ours()), chosen, folder).run()
    same(written(folder), written(tmp_path / "whole"))
    assert len(read(folder / "trajectory.extxyz", ":")) == 11


@pytest.mark.parametrize("name", ["nve", "langevin", "npt"])
def test_more_steps_go_on_with_a_finished_run(name, ours, tmp_path):
    Simulation(crystal(ours()), settings(steps=25, **INTEGRATORS[name]), tmp_path / "whole").run()
    for steps in (11, 25):
        Simulation(crystal(ours()), settings(steps=steps, **INTEGRATORS[name]), tmp_path / "longer").run()
    same(written(tmp_path / "longer"), written(tmp_path / "whole"))
    with pytest.raises(InputError, match="has 25 steps, and 11 are requested"):
        Simulation(crystal(ours()), settings(steps=11, **INTEGRATORS[name]), tmp_path / "longer")


def test_it_is_the_integrator_of_ase(ours, tmp_path):
    for name, make in {
        "nve": lambda atoms, generator: VelocityVerlet(atoms, 2 * units.fs),
        "langevin": lambda atoms, generator: Langevin(
            atoms, 2 * units.fs, temperature_K=40, friction=0.01 / units.fs, fixcm=False, rng=generator
        ),
    }.items():
        atoms, generator = crystal(ours()), np.random.default_rng(0)
        start_velocities(atoms, 40.0, generator)
        make(atoms, generator).run(30)
        moved = crystal(ours())
        Simulation(moved, settings(**INTEGRATORS[name]), tmp_path / name).run()
        np.testing.assert_array_equal(moved.positions, atoms.positions)
        np.testing.assert_array_equal(moved.get_momenta(), atoms.get_momenta())


def test_the_log_tells_what_ase_measures(ours, tmp_path):
    atoms = crystal(ours())
    Simulation(atoms, settings(**INTEGRATORS["npt"]), tmp_path).run()
    with (tmp_path / "thermo.csv").open(newline="") as file:
        last = {name: float(value) for name, value in list(csv.DictReader(file))[-1].items()}
    assert (last["step"], last["time [fs]"]) == (30, 60)
    assert last["potential energy [eV/atom]"] == pytest.approx(atoms.get_potential_energy() / 4)
    assert last["total energy [eV/atom]"] == pytest.approx(atoms.get_total_energy() / 4)
    assert last["temperature [K]"] == pytest.approx(atoms.get_temperature())
    kinetic = 2 * atoms.get_kinetic_energy() / 3 / atoms.get_volume()
    virial = -atoms.get_stress()[:3].mean()
    assert last["pressure [GPa]"] == pytest.approx((virial + kinetic) / units.GPa, rel=1e-8)
    assert last["volume [Å^3/atom]"] == pytest.approx(atoms.get_volume() / 4)
    assert last["ns/day"] > 0


def test_a_frame_holds_what_the_model_gives(ours, tmp_path):
    atoms = crystal(ours())
    atoms.info["note"] = "of the file"
    Simulation(atoms, settings(), tmp_path).run()
    frame = read(tmp_path / "trajectory.extxyz", -1)
    assert frame.info == {"step": 30, "time_fs": 60.0}
    np.testing.assert_allclose(frame.positions, atoms.positions, atol=1e-8)
    np.testing.assert_allclose(frame.get_momenta(), atoms.get_momenta(), atol=1e-8)
    np.testing.assert_allclose(frame.get_forces(), atoms.get_forces(), atol=1e-8)
    np.testing.assert_allclose(frame.get_stress(), atoms.get_stress(), atol=1e-12)
    assert frame.get_potential_energy() == pytest.approx(atoms.get_potential_energy())


def test_velocities_are_of_the_temperature_and_the_centre_rests():
    atoms = bulk("Cu", cubic=True) * 8
    start_velocities(atoms, 300.0, np.random.default_rng(0))
    assert atoms.get_temperature() == pytest.approx(300, rel=0.05)  # a standard deviation is 1.8 %
    np.testing.assert_allclose(atoms.get_momenta().sum(0), 0, atol=1e-9)
    before = atoms.get_momenta()
    assert "from the structure" in start_velocities(atoms, 300.0, np.random.default_rng(1))
    np.testing.assert_array_equal(atoms.get_momenta(), before)
    start_velocities(atoms, 300.0, np.random.default_rng(1), "random")
    assert not np.allclose(atoms.get_momenta(), before)
    with pytest.raises(InputError, match="specify a temperature"):
        start_velocities(crystal(), None, np.random.default_rng(0))
    with pytest.raises(InputError, match="has no velocities"):
        start_velocities(crystal(), 300.0, np.random.default_rng(0), "file")


@pytest.mark.parametrize("name", ["nve", "langevin", "bussi"])
def test_atoms_that_are_held_stay(name, ours, tmp_path):
    atoms = crystal(ours())
    atoms.set_constraint(FixAtoms([0, 2]))
    before = atoms.get_positions()
    Simulation(atoms, settings(**INTEGRATORS[name]), tmp_path).run()
    np.testing.assert_array_equal(atoms.positions[[0, 2]], before[[0, 2]])
    assert (np.abs(atoms.positions[[1, 3]] - before[[1, 3]]).max(1) > 1e-3).all()


def test_what_cannot_be_integrated_is_refused(ours, tmp_path):
    held = crystal(ours())
    held.set_constraint(FixAtoms([0]))
    slab = fcc111("Ar", (1, 1, 2), a=5.3, vacuum=8.0)
    still = crystal(ours())
    for atoms, changed, words in (
        (held, INTEGRATORS["nose-hoover"], "has constraints"),
        (held, INTEGRATORS["npt"], "has constraints"),
        (slab, INTEGRATORS["npt"], "periodic in three directions"),
        (still, {**INTEGRATORS["bussi"], "velocities": "file"}, "all are zero"),
    ):
        atoms.set_momenta(np.zeros((len(atoms), 3)))
        with pytest.raises(InputError, match=words):
            Simulation(
                atoms, settings(**changed, **({} if "velocities" in changed else {"velocities": "random"})), tmp_path
            )


def test_ctrl_c_ends_after_the_step_and_the_run_goes_on(ours, tmp_path):
    Simulation(crystal(ours()), settings(), tmp_path / "whole").run()
    for number, place in ((signal.SIGINT, 5), (signal.SIGTERM, 18)):

        def end(step, row, number=number, place=place):
            if step == place:
                signal.raise_signal(number)

        before = signal.getsignal(number)
        outcome = Simulation(crystal(ours()), settings(), tmp_path / "ended").run(report=end)
        assert (outcome.step, outcome.signal) == (place, number)
        assert signal.getsignal(number) is before
        assert read(tmp_path / "ended" / "last.extxyz").info["step"] == place
    Simulation(crystal(ours()), settings(), tmp_path / "ended").run()
    same(written(tmp_path / "ended"), written(tmp_path / "whole"))


def test_the_second_ctrl_c_interrupts_at_once(ours, tmp_path):
    def twice(step, row):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        Simulation(crystal(ours()), settings(), tmp_path).run(report=twice)


def test_a_rule_stops_a_run_which_can_go_on(ours, tmp_path):
    Simulation(crystal(ours()), settings(), tmp_path / "whole").run()
    seen = []

    def rule(results):
        seen.append(results["energy"])
        return "it is enough" if len(seen) == 12 else None

    outcome = Simulation(crystal(ours()), settings(), tmp_path / "stopped").run(stop=rule)
    assert (outcome.step, outcome.stopped) == (11, "it is enough")  # the start is asked about, too
    assert read(tmp_path / "stopped" / "last.extxyz").info["step"] == 11
    assert len(set(seen)) == 12
    Simulation(crystal(ours()), settings(), tmp_path / "stopped").run()
    same(written(tmp_path / "stopped"), written(tmp_path / "whole"))


def failing(calculator, place, act):
    """A calculator of which one call goes wrong."""
    calls, calculate = [], calculator.calculate

    def wrapped(*arguments):
        calls.append(None)
        if len(calls) == place:
            return act(lambda: calculate(*arguments))
        return calculate(*arguments)

    calculator.calculate = wrapped
    return calculator


def out_of_memory(calculate):
    raise torch.OutOfMemoryError("CUDA out of memory.")


@pytest.mark.parametrize("name", ["nve", "npt"])
def test_without_memory_the_last_frame_is_left_and_the_run_goes_on(name, ours, tmp_path):
    chosen, folder = settings(**INTEGRATORS[name]), tmp_path / "ended"
    Simulation(crystal(ours()), chosen, tmp_path / "whole").run()
    with pytest.raises(SimulationError, match=r"Step 16: CUDA out of memory\. The last frame, of step 15, is in"):
        Simulation(crystal(failing(ours(), 17, out_of_memory)), chosen, folder).run()
    assert read(folder / "last.extxyz").info["step"] == 15
    assert (folder / "last.extxyz").read_text() in (tmp_path / "whole" / "trajectory.extxyz").read_text()
    assert load_state(folder / "state.pt")["step"] == 15
    Simulation(crystal(ours()), chosen, folder).run()
    same(written(folder), written(tmp_path / "whole"))


def test_without_memory_at_the_start(ours, tmp_path):
    with pytest.raises(SimulationError, match=r"Step 0: CUDA out of memory\."):
        Simulation(crystal(failing(ours(), 1, out_of_memory)), settings(), tmp_path).run()
    assert read(tmp_path / "last.extxyz").info["step"] == 0
    assert Simulation(crystal(ours()), settings(), tmp_path).run().step == 30
    assert len(read(tmp_path / "trajectory.extxyz", ":")) == 11


def test_an_error_of_somebody_else_passes_and_the_last_frame_is_left(ours, tmp_path):
    def broken(calculate):
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError):
        Simulation(crystal(failing(ours(), 6, broken)), settings(), tmp_path).run()
    assert read(tmp_path / "last.extxyz").info["step"] == 4


@pytest.mark.parametrize("quantity", ["energy", "forces"])
def test_what_is_not_finite_ends_the_run(quantity, ours, tmp_path):
    calculator = ours()

    def spoil(calculate):
        calculate()
        calculator.results[quantity] = calculator.results[quantity] * np.nan

    words = "The energy is nan" if quantity == "energy" else r"The force on atom 0 is \[nan"
    with pytest.raises(SimulationError, match=f"Step 8: {words}.*timestep"):
        Simulation(crystal(failing(calculator, 9, spoil)), settings(), tmp_path).run()
    frame = read(tmp_path / "last.extxyz")
    assert frame.info["step"] == 7
    assert np.isfinite(frame.positions).all()


def pushed(direction, energy):
    """An atom with so much kinetic energy, in eV."""
    atoms = Atoms("Ar2", positions=[[0, 0, 0], [0, 0, 4.0]])
    atoms.set_momenta([[0, 0, 0], np.sqrt(2 * atoms.get_masses()[1] * energy) * np.eye(3)[direction]])
    return atoms


@pytest.mark.parametrize(
    ("atoms", "changed", "words", "step"),
    [
        (pushed(2, 10.0), {}, r"The temperature is \d+ K, above the bound of 10000 K", 0),
        (pushed(2, 0.5), {"max_temperature": 50.0}, "above the bound of 50 K", 0),
        (pushed(2, 1.0), {"timestep": 60.0}, r"Atom 1 \(Ar\) moves by 1\.\d\d Å in one step", 0),
        (pushed(2, 1.0), {"timestep": 40.0, "steps": 200}, "The atoms have flown apart: they extend over 10", 114),
    ],
    ids=["temperature", "chosen bound", "speed", "extent"],
)
def test_explosions_end_the_run(atoms, changed, words, step, ours, tmp_path):
    atoms.calc = ours()
    with pytest.raises(SimulationError, match=words) as error:
        Simulation(atoms, settings(**changed), tmp_path).run()
    last = read(tmp_path / "last.extxyz").info["step"]
    assert str(error.value).startswith(f"Step {last}: ")
    assert abs(last - step) <= 5


def test_a_cell_that_swells_ends_the_run(ours, tmp_path):
    atoms = crystal(ours())
    with pytest.raises(
        SimulationError, match=r"The cell is \d\d\.\d times as large as at the start \(bounds 1/10 and 10\)"
    ):
        Simulation(
            atoms,
            settings(ensemble="npt", pressure=-0.01, pressure_tau=50.0, steps=5000, max_temperature=1e9),
            tmp_path,
        ).run()


def test_a_state_of_another_ase_is_refused(ours, tmp_path):
    Simulation(crystal(ours()), settings(ensemble="npt", pressure=0.0), tmp_path).run()
    state = load_state(tmp_path / "state.pt")
    del state["version"], state["integrator"]["_p_eps"]
    save_state(tmp_path / "state.pt", state)
    with pytest.raises(CheckpointError, match="lacks _p_eps of IsotropicMTKNPT"):
        Simulation(crystal(ours()), settings(ensemble="npt", pressure=0.0), tmp_path)


def test_a_state_of_other_atoms_is_refused(ours, tmp_path):
    Simulation(crystal(ours()), settings(steps=2), tmp_path).run()
    with pytest.raises(InputError, match="has 4 atoms, the structure has 32"):
        Simulation(crystal(ours()) * 2, settings(steps=2), tmp_path)


def test_a_folder_in_which_a_run_is_writing_is_refused(ours, tmp_path):
    first = Simulation(crystal(ours()), settings(steps=4), tmp_path)
    with pytest.raises(InputError, match=r"Another process is writing .*trajectory\.extxyz"):
        Simulation(crystal(ours()), settings(steps=4), tmp_path)
    first.run()
    Simulation(crystal(ours()), settings(steps=6), tmp_path).run()


def test_a_file_that_was_cut_is_refused(tmp_path):
    file = AppendLog(tmp_path / "log.csv")
    file.append("ab\n")
    assert file.size == 3
    file.close()
    AppendLog(tmp_path / "log.csv", 2).close()
    assert (tmp_path / "log.csv").read_text() == "ab"
    with pytest.raises(CheckpointError, match="has 2 bytes but had 3"):
        AppendLog(tmp_path / "log.csv", 3)
