"""The published networks by name: each is made, of one layer, and used."""

from __future__ import annotations

import inspect

import pytest
import torch
from e3nn import o3

import geoeq.models
from geoeq.models import DecodedVector, GraphScalar, Head, Positions
from geoeq.symmetry import random_batch

NETWORKS = (*geoeq.models.NETWORKS, *geoeq.models.COORDINATE_NETWORKS)
CASES = [(name, preset) for name in NETWORKS for preset in getattr(geoeq.models, name).PRESETS]


@pytest.mark.parametrize(("name", "preset"), CASES)
def test_a_preset_is_a_network_that_runs(name: str, preset: str) -> None:
    network = getattr(geoeq.models, name)
    fewer = {key: 1 for key in ("layers", "blocks") if key in inspect.signature(network).parameters}
    head: Head = GraphScalar("energy")
    if preset in ("nbody", "optimization"):
        head = DecodedVector("positions") if network.group == "T(3)" else Positions()
    model = network.preset(preset, [head], **fewer).eval()
    data = random_batch((4, 1), dtype=torch.float32)
    width = o3.Irreps(network.PRESETS[preset].get("features_irreps", "4x0e")).dim
    data.x = data.x.repeat(1, width)[:, :width]
    outputs = model(data)
    assert set(outputs) == set(head.names)
    assert all(value.isfinite().all() for value in outputs.values())
