"""The published networks by name: each is made, of one layer, and used."""

from __future__ import annotations

import inspect

import pytest
import torch
from e3nn import o3

import geoeq.models
from geoeq.models import GraphScalar, Positions
from geoeq.symmetry import random_batch

CASES = [(name, preset) for name in geoeq.models.NETWORKS for preset in getattr(geoeq.models, name).PRESETS]


@pytest.mark.parametrize(("name", "preset"), CASES)
def test_a_preset_is_a_network_that_runs(name: str, preset: str) -> None:
    network = getattr(geoeq.models, name)
    fewer = {key: 1 for key in ("layers", "blocks") if key in inspect.signature(network).parameters}
    head = Positions() if preset in ("nbody", "optimization") else GraphScalar("energy")
    model = network.preset(preset, [head], **fewer).eval()
    data = random_batch((4, 1), dtype=torch.float32)
    width = o3.Irreps(network.PRESETS[preset].get("features_irreps", "4x0e")).dim
    data.x = data.x.repeat(1, width)[:, :width]
    outputs = model(data)
    assert set(outputs) == set(head.names)
    assert all(value.isfinite().all() for value in outputs.values())
