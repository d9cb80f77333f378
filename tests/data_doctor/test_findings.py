"""Data that were made ill on purpose: each illness is found and named, and nothing is found in what is healthy."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from geoeq.data import Dataset, load
from geoeq.data_doctor import Diagnosis, Finding, diagnose
from geoeq.units import conversion


def found(diagnosis: Diagnosis, check: str, severity: str) -> list[Finding]:
    return [one for one in diagnosis.of(severity) if one.check == check]


def only(diagnosis: Diagnosis, check: str, severity: str) -> Finding:
    (one,) = found(diagnosis, check, severity)
    return one


@pytest.mark.parametrize("name", ["rmd17", "3bpa", "lips", "qm9", "oc20_s2ef_200k", "oc22_s2ef"])
@pytest.mark.parametrize("full", [False, True])
def test_healthy_data_pass(name: str, full: bool) -> None:
    diagnosis = diagnose(load(name, sample=True), full=full)
    assert diagnosis.of("error") == ()
    assert diagnosis.of("warning") == ()


def test_the_copies_of_qm7_are_its_only_illness() -> None:
    """QM7 has molecules twice, to 1e-5 Å and with equal energies; nothing else is said of it."""
    dataset = load("qm7")
    diagnosis = diagnose(dataset)
    assert diagnosis.healthy
    assert {one.check for one in diagnosis.of("warning")} == {"duplicates", "leakage"}
    assert diagnosis.examined <= 1500


def test_strained_silicon_is_consistent(copy_of) -> None:
    diagnosis = diagnose(load("mlearn", sample=True))
    assert diagnosis.healthy
    assert "are right" in only(diagnosis, "energy and stress", "note").text
    assert "is right" in only(diagnosis, "order of the stress", "note").text
    # Equivalent strains of a cubic crystal are the same structure.
    assert {one.check for one in diagnosis.of("warning")} == {"duplicates", "leakage"}


@pytest.mark.parametrize(
    ("unit", "name", "said"),
    [
        ("kcal/mol", "energy", "'energy' is in kcal/mol in the file"),
        ("kJ/mol", "energy", "'energy' is in kJ/mol in the file"),
        ("Ha", "energy", "'energy' is in Ha in the file"),
        ("kcal/mol/Å", "forces", "'forces' is in kcal/mol/Å in the file"),
        ("Ha/Bohr", "forces", "'forces' is in Ha/Bohr in the file"),
    ],
)
def test_units_of_energies_and_forces(copy_of, unit: str, name: str, said: str) -> None:
    """What is in another unit than the card says."""
    dataset, arrays = copy_of("rmd17")
    inside = "eV" if name == "energy" else "eV/Å"
    targets = dict(dataset.card.targets)
    targets |= {key: dataclasses.replace(targets[key], unit=own) for key, own in (("energy", "eV"), ("forces", "eV/Å"))}
    arrays[f"target.{name}"] *= conversion(inside, unit)
    diagnosis = diagnose(Dataset(dataclasses.replace(dataset.card, targets=targets), arrays))
    assert said in only(diagnosis, "energy and forces", "error").text
    if name == "energy":
        assert f"'energy' is in {unit}" in only(diagnosis, "unit of the energy", "warning").text


def test_gradients_taken_for_forces(copy_of) -> None:
    dataset, arrays = copy_of("rmd17")
    arrays["target.forces"] *= -1
    one = only(diagnose(Dataset(dataset.card, arrays)), "energy and forces", "error")
    assert "the forces are gradients" in one.text
    assert "'-name'" in one.remedy


@pytest.mark.parametrize(
    ("factor", "said"),
    [
        (-1.0, "the stress is a pressure"),
        (conversion("eV/Å^3", "kbar"), "'stress' is in eV/Å^3 in the file, and read as kbar"),
        (conversion("GPa", "kbar"), "'stress' is in GPa in the file, and read as kbar"),
        (-1 / conversion("GPa", "kbar"), None),
    ],
)
def test_stress_of_another_sign_or_unit(copy_of, factor: float, said: str | None) -> None:
    dataset, arrays = copy_of("mlearn")
    arrays["target.stress"] *= factor if said is None or factor < 0 else 1 / factor
    one = only(diagnose(Dataset(dataset.card, arrays)), "energy and stress", "error")
    assert said is None or said in one.text


def test_stress_in_kbar_read_as_ev(copy_of) -> None:
    dataset, arrays = copy_of("mlearn")
    arrays["target.stress"] *= conversion("eV/Å^3", "kbar")
    targets = dataset.card.targets | {"stress": dataclasses.replace(dataset.card.targets["stress"], unit="eV/Å^3")}
    diagnosis = diagnose(Dataset(dataclasses.replace(dataset.card, targets=targets), arrays))
    assert "in kbar in the file, and read as eV/Å^3" in only(diagnosis, "energy and stress", "error").text


def test_the_order_of_vasp_read_as_that_of_ase(copy_of) -> None:
    dataset, arrays = copy_of("mlearn")
    stress = arrays["target.stress"]
    xy, yz, xz = stress[:, 0, 1].copy(), stress[:, 1, 2].copy(), stress[:, 0, 2].copy()
    for (i, j), values in {(1, 2): xy, (0, 2): yz, (0, 1): xz}.items():
        stress[:, i, j] = stress[:, j, i] = values
    one = only(diagnose(Dataset(dataset.card, arrays)), "order of the stress", "error")
    assert "yz is actually xy, xz is actually yz, xy is actually xz" in one.text
    assert "order: vasp" in one.remedy


def test_copies_across_the_split(copy_of, pose) -> None:
    dataset, arrays = copy_of("rmd17")
    split = dataset.split()
    train, test = split["train"].tolist(), split["test"].tolist()
    for source, target in zip(train[:8], test[:8]):
        pose(arrays, source, target)
    one = only(diagnose(Dataset(dataset.card, arrays), split=split), "leakage", "error")
    assert one.structures == tuple(sorted(test[:8])[:5])
    assert one.count == 8
    first = min(test[:8])
    assert f"{first} equals the training structure {train[test.index(first)]}" in one.text


def test_a_shared_place_of_a_split(copy_of) -> None:
    dataset = load("rmd17", sample=True)
    split = {"train": np.arange(50), "valid": np.arange(49, 60), "test": np.arange(60, 100)}
    assert only(diagnose(dataset, split=split), "leakage", "error").structures == (49,)


def test_copies_far_apart_are_found_by_their_energies(copy_of, pose) -> None:
    """The quick form measures some structures, but compares all energies."""
    dataset = load("qm7")
    batch = dataset.batch(range(len(dataset)), dtype=torch.float64)
    arrays = {"positions": batch.pos.numpy(), "ptr": batch.ptr.numpy(), "numbers": batch.z.numpy()}
    arrays["target.atomization_energy"] = batch["atomization_energy"].numpy().copy()
    sizes = np.diff(arrays["ptr"])
    _, inverse, counts = np.unique(arrays["target.atomization_energy"], return_inverse=True, return_counts=True)
    single = np.flatnonzero(counts[inverse] == 1)
    source = int(single[2000])
    target = int(single[(single > 5000) & (sizes[single] == sizes[source])][1])
    pose(arrays, source, target)
    before, after = (
        only(diagnose(data, split={}), "duplicates", "warning").count
        for data in (dataset, Dataset(dataset.card, arrays))
    )
    assert after == before + 1


def test_labels_that_contradict_each_other(copy_of, pose) -> None:
    dataset, arrays = copy_of("rmd17")
    pose(arrays, 3, 70)
    arrays["target.energy"][70] += 0.1
    texts = [one.text for one in found(diagnose(Dataset(dataset.card, arrays)), "duplicates", "warning")]
    assert any("differs by up to 0.0111 eV" in text and "(3 and 70)" in text for text in texts)


def test_an_energy_that_stands_out(copy_of) -> None:
    dataset, arrays = copy_of("rmd17")
    arrays["target.energy"][17] += 20.0
    one = only(diagnose(Dataset(dataset.card, arrays)), "energies", "warning")
    assert one.structures == (17,)
    assert "+2.2" in one.text


def test_a_force_that_stands_out(copy_of) -> None:
    dataset, arrays = copy_of("rmd17")
    first = arrays["ptr"][31]
    arrays["target.forces"][first] += 100.0
    arrays["target.forces"][first + 1] -= 100.0
    assert only(diagnose(Dataset(dataset.card, arrays)), "forces", "warning").structures == (31,)


def test_net_forces_and_torques(copy_of) -> None:
    dataset, arrays = copy_of("rmd17")
    arrays["target.forces"][arrays["ptr"][8] : arrays["ptr"][9]] += [0.5, 0.0, 0.0]
    atoms = slice(arrays["ptr"][12], arrays["ptr"][13])
    arrays["target.forces"][atoms] = np.roll(arrays["target.forces"][atoms], 1, axis=0)  # of the wrong atoms
    diagnosis = diagnose(Dataset(dataset.card, arrays))
    assert only(diagnosis, "net force", "warning").structures == (8,)
    assert only(diagnosis, "torque", "warning").structures == (12,)


def test_no_forces_in_the_forces(copy_of) -> None:
    dataset, arrays = copy_of("rmd17")
    arrays["target.forces"][:] = 0.0
    diagnosis = diagnose(Dataset(dataset.card, arrays))
    assert "All forces are zero" in only(diagnosis, "forces", "error").text
    assert "'forces' is 0 everywhere" in only(diagnosis, "values", "error").text


@pytest.mark.parametrize("name", ["energy", "forces"])
def test_a_value_that_is_none(copy_of, name: str) -> None:
    dataset, arrays = copy_of("rmd17")
    arrays[f"target.{name}"][44 if name == "energy" else arrays["ptr"][44] + 3] = np.nan
    one = only(diagnose(Dataset(dataset.card, arrays)), "values", "error")
    assert one.structures == (44,)
    assert f"'{name}'" in one.text


def test_a_position_that_is_none(copy_of) -> None:
    dataset, arrays = copy_of("rmd17")
    arrays["positions"][arrays["ptr"][5]] = np.inf
    diagnosis = diagnose(Dataset(dataset.card, arrays))
    assert only(diagnosis, "positions", "error").structures == (5,)
    assert diagnosis.examined == 99


def test_missing_labels(copy_of) -> None:
    dataset = load("qm7", sample=True)
    one = only(diagnose(dataset, targets=["atomization_energy", "forces"]), "labels", "error")
    assert "There is no 'forces'" in one.text


def test_overlapping_coincident_and_isolated_atoms(copy_of) -> None:
    dataset, arrays = copy_of("qm9")
    first = arrays["ptr"]
    arrays["positions"][first[60] + 1] = arrays["positions"][first[60]]
    arrays["positions"][first[70] + 1] = arrays["positions"][first[70]] + [0.3, 0.0, 0.0]
    arrays["positions"][first[80]] += [40.0, 0.0, 0.0]
    diagnosis = diagnose(Dataset(dataset.card, arrays))
    assert only(diagnosis, "overlap", "error").structures == (60,)
    assert only(diagnosis, "overlap", "warning").structures == (70,)
    assert only(diagnosis, "isolated atoms", "warning").structures == (80,)


def test_lengths_in_bohr(copy_of) -> None:
    dataset, arrays = copy_of("qm9")
    arrays["positions"] *= conversion("Å", "Bohr")
    assert "Bohr read as Å" in only(diagnose(Dataset(dataset.card, arrays)), "unit of length", "warning").text


def test_wrong_elements(copy_of) -> None:
    dataset, arrays = copy_of("rmd17")
    split = dataset.split()
    place = int(split["test"][0])
    arrays["numbers"][arrays["ptr"][place]] = 82
    one = only(diagnose(Dataset(dataset.card, arrays), split=split), "elements", "warning")
    assert "Pb" in one.text
    assert one.structures == (place,)
    arrays["numbers"][arrays["ptr"][place]] = 0
    one = only(diagnose(Dataset(dataset.card, arrays), split=split), "elements", "error")
    assert one.structures == (place,)


def test_atomization_energies_of_the_wrong_sign_or_unit() -> None:
    dataset = load("qm7", sample=True)
    arrays = {"positions": dataset.positions, "ptr": dataset.ptr, "numbers": dataset.numbers}
    for factor, said in ((-1.0, "is positive"), (conversion("eV", "kcal/mol"), "by more than 10 eV")):
        values = dataset.targets["atomization_energy"] * factor
        diagnosis = diagnose(Dataset(dataset.card, arrays | {"target.atomization_energy": values}))
        assert said in only(diagnosis, "unit of the energy", "error").text
