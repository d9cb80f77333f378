"""Surfaces with adsorbates have the fields of OC20, with energies that can be computed again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase.calculators.emt import EMT

from geoeq.errors import InputError
from geoeq.factory import Rattle, Settings
from geoeq.factory.methods import find_method
from geoeq.factory.sampling import free_atoms
from geoeq.factory.starts import Start
from geoeq.factory.surfaces import Surface, adsorbed, gas_start, slab_start
from geoeq.factory.task_results import Result
from geoeq.factory.tasks import sample_frames

SURFACE = Surface.parse("Cu:fcc111:1x1x3")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Cu", "write it as in --surface Cu:fcc111:2x2x4"),
        ("Xx:fcc111:2x2x3", "no element Xx"),
        ("Cu:fcc112:2x2x3", "Did you mean 'fcc11"),
        ("Cu:fcc111:2x2x2", "3 or more layers"),
    ],
)
def test_what_is_no_surface_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Surface.parse(text)


def test_a_metal_without_a_lattice_constant_for_the_facet_is_refused() -> None:
    with pytest.raises(InputError, match="ASE cannot build it"):
        slab_start(Surface.parse("Fe:fcc111:1x1x3"))


def test_an_adsorbate_that_is_unknown_is_refused() -> None:
    with pytest.raises(InputError, match="No adsorbate is called 'COO'"):
        gas_start("COO")


def test_layers_are_tagged_and_held_as_in_oc20() -> None:
    slab = Surface.parse("Pt:fcc100:2x1x4").build()
    heights = slab.positions[:, 2]
    assert slab.pbc.all()
    assert sorted(slab.get_tags()) == [0] * 6 + [1] * 2
    assert heights[slab.get_tags() == 1].min() > heights[slab.get_tags() == 0].max()
    assert free_atoms(slab).sum() == 4
    assert heights[free_atoms(slab)].min() > heights[~free_atoms(slab)].max()


def test_an_odd_electron_is_unpaired() -> None:
    assert [gas_start(name).multiplicity for name in ("H", "O", "CO", "OH", "CH3")] == [2, 1, 1, 2, 2]


def start_of(adsorbate: str) -> list[Start]:
    slab, gas = replace(slab_start(SURFACE), reference=1.0), replace(gas_start(adsorbate), reference=2.0)
    return adsorbed(slab, gas)


def test_an_adsorbate_is_placed_on_each_site_by_its_binding_atom() -> None:
    starts = start_of("CO")
    assert [start.atoms.info["site"] for start in starts] == ["ontop", "bridge", "fcc", "hcp"]
    assert {start.group for start in starts} == {"CO on Cu fcc111 1x1x3"}
    for start in starts:
        atoms = start.atoms
        assert start.reference == 3.0
        assert atoms.get_tags().tolist() == [0, 0, 1, 2, 2]
        assert atoms.numbers[3:].tolist() == [6, 8]
        surface, carbon, oxygen = atoms.positions[2:, 2]
        assert surface + 1 < carbon < oxygen
        assert free_atoms(atoms).tolist() == [False, True, True, True, True]


def test_a_relaxation_gives_what_oc20_has() -> None:
    settings, method = Settings("emt"), find_method("emt")
    result = sample_frames(start_of("H")[2], settings, method)
    frames = result.frames
    assert result.failures == []
    assert len(frames["energy"]) > 3
    assert np.allclose(frames["adsorption_energy"], frames["energy"] - 3.0, atol=1e-12)
    assert np.all(frames["relaxed_energy"] == frames["adsorption_energy"][-1])
    assert np.all(frames["relaxed_positions"] == frames["positions"][-1])
    free = free_atoms(Start.from_dict(result.start or {}).atoms)
    moved = frames["positions"] - frames["positions"][0]
    assert np.abs(moved[:, ~free]).max() == 0
    assert np.abs(moved[:, free]).max() > 1e-3
    assert np.linalg.norm(frames["forces"][-1][free], axis=1).max() <= 0.05
    assert np.linalg.norm(frames["forces"][-1][~free], axis=1).max() > 0  # as the method gives them
    atoms = Start.from_dict(result.start or {}).atoms
    atoms.calc, atoms.positions = EMT(), frames["positions"][1]
    assert atoms.get_potential_energy() == pytest.approx(frames["energy"][1], abs=1e-10)


def test_with_sampling_the_frames_are_about_the_relaxed_structure() -> None:
    settings, method = Settings("emt", rattle=Rattle(0.05, 3)), find_method("emt")
    frames = sample_frames(start_of("H")[0], settings, method).frames
    assert "relaxed_energy" not in frames
    assert len(frames["adsorption_energy"]) == 4
    assert frames["energy"][0] == frames["energy"].min()


def test_a_relaxation_that_fails_leaves_nothing() -> None:
    start = start_of("H")[0]
    result = sample_frames(start, Settings("emt", max_force=1e-9), find_method("emt"))
    assert result == Result(failures=result.failures)
    assert {"a force of" in failure.reason for failure in result.failures} == {True}
