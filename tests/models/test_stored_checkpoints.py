"""What was stored once loads for ever: configurations, and a checkpoint of each model with the numbers it predicted."""

from __future__ import annotations

import importlib
import inspect
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch_geometric.data import Batch

import geoeq.models
from geoeq.data.card import load_card, names
from geoeq.data.preparation.reading import make_reader
from geoeq.geometry.random_structures import random_batch
from geoeq.models import Configurable, Model, from_config
from geoeq.models.checkpoint import FORMAT_VERSION, load_checkpoint

FOLDER = Path(__file__).parent / "checkpoints"
STORED = sorted(path.parent for path in FOLDER.glob("v*/*/model.json"))
CONFIGURATIONS = json.loads((FOLDER / "configurations.json").read_text())
EXPORTED = {name: value for name in geoeq.models.__all__ if inspect.isclass(value := getattr(geoeq.models, name))}
BUILT = {name: c for name, c in EXPORTED.items() if issubclass(c, Configurable) and not inspect.isabstract(c)}


def stored_input() -> Batch:
    """The structures of checkpoints/input.safetensors, with which the stored outputs were computed."""
    batch = random_batch((4, 1, 3))
    for name, value in load_file(FOLDER / "input.safetensors").items():
        batch[name] = value
    return batch


@pytest.mark.parametrize("folder", STORED, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def test_a_stored_checkpoint_predicts_the_same_numbers(folder):
    model, _ = load_checkpoint(folder)
    outputs, expected = model(stored_input()), load_file(folder / "output.safetensors")
    assert set(outputs) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(outputs[name], value, rtol=0, atol=1e-9 * float(value.abs().max()))


def test_every_model_has_a_stored_checkpoint():
    models = {name for name, kind in BUILT.items() if issubclass(kind, Model)}
    missing = models - {folder.name for folder in STORED}
    assert not missing, f"run tests/models/checkpoints/make.py for {missing}"
    assert int(STORED[-1].parent.name.removeprefix("v")) <= FORMAT_VERSION


@pytest.mark.parametrize("name", sorted(CONFIGURATIONS))
def test_a_stored_configuration_is_unchanged(name):
    stored = CONFIGURATIONS[name]
    assert stored["class_path"] == f"geoeq.models.{name}"
    if name == "Dispersion":
        pytest.importorskip("torch_dftd")
    assert from_config(stored, Configurable).config() == stored


def test_every_class_has_a_stored_configuration():
    assert set(BUILT) - {"Configurable"} == set(CONFIGURATIONS)


#: What the keys of prepared data and users' cards refer to.
READERS = {
    "geoeq.data.catalysts.OpenCatalystReader",
    "geoeq.data.formats.deepmd.DeepMDReader",
    "geoeq.data.formats.extxyz.ExtxyzReader",
    "geoeq.data.formats.hdf5.HDF5Reader",
    "geoeq.data.formats.npz.NpzReader",
    "geoeq.data.formats.pymatgen_json.PymatgenReader",
    "geoeq.data.formats.rmd17.RMD17Reader",
    "geoeq.data.nbody.NBodyReader",
    "geoeq.data.qm7.QM7Reader",
    "geoeq.data.qm9.QM9Reader",
}


def test_the_paths_of_readers_are_unchanged():
    assert {load_card(name).reader for name in names()} == READERS
    for name in names():
        assert callable(make_reader(load_card(name)).read)
    for path in READERS:
        module, _, name = path.rpartition(".")
        assert inspect.isclass(getattr(importlib.import_module(module), name))
