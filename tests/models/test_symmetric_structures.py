"""Networks as deep as published, on symmetric molecules and perfect crystals, where many features vanish by symmetry.

What vanishes is rounding noise; a network that enlarges it in each layer has energies that are not invariant there, and
forces without bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from geoeq.geometry.rotations import random_rotations
from geoeq.models import (
    EGNN,
    ESCN,
    PONITA,
    Equiformer,
    EquiformerV2,
    EveryLayerScalar,
    FAENet,
    Forces,
    GraphScalar,
    IterativeSE3Transformer,
    Model,
    SampledScalar,
    SE3Transformer,
    SphereScalar,
    TensorFieldNetwork,
    VectorNeurons,
)

CUTOFF = 4.0


def equiformer_v2(layers: int, **options: object) -> Model:
    sizes = {"channels": 4, "hidden_channels": 4, "alpha_channels": 4, "value_channels": 4, "feed_forward_channels": 4}
    heads = [SphereScalar("energy", feed_forward_channels=4, resolution=18)]
    sizes |= {"edge_channels": 4, "num_basis": 8, "attention_heads": 2, "lmax": 2, "mmax": 2, "resolution": 18}
    options = {"activation": "gate", "feed_forward": "gate"} | options
    return EquiformerV2(heads, layers=layers, cutoff=CUTOFF, average_degree=12.0, **sizes, **options)


def equiformer(parities: bool, **options: object) -> Model:
    rotations = {"irreps": "8x0e+4x1e+2x2e", "irreps_head": "4x0e+2x1e+1x2e", "irreps_middle": "8x0e+4x1e+2x2e"}
    both = "8x0e+2x0o+2x1e+2x1o+2x2e+2x2o"
    inversion = {"irreps": both, "irreps_head": "4x0e+1x0o+1x1e+1x1o+1x2e+1x2o", "irreps_middle": both}
    inversion["irreps_harmonics"] = "1x0e+1x1o+1x2e"
    sizes = inversion if parities else rotations
    energy = [GraphScalar("energy")]
    return Equiformer(energy, irreps_out="8x0e", num_basis=8, radial_hidden=(8,), **sizes, **options)


def escn() -> Model:
    sizes = {"lmax": 2, "mmax": 2, "channels": 4, "hidden_channels": 4, "edge_channels": 4, "num_basis": 8}
    return ESCN([SampledScalar("energy")], layers=12, cutoff=CUTOFF, average_degree=12.0, resolution=18, **sizes)


def sized(network: type[Model], **sizes: object) -> Callable[[], Model]:
    return lambda: network([GraphScalar("energy")], cutoff=CUTOFF, **sizes)  # a model of its own head


_ATTENTION = {"attention_heads": 2, "hidden": 8, "num_basis": 4}

#: Name -> network with the number of layers of its paper, and everything else that is not width by default.
DEEP: dict[str, Callable[[], Model]] = {
    "EGNN 7": sized(EGNN, width=8),
    "EGNN 7 length": sized(EGNN, width=8, normalize="length"),
    "ESCN 12": escn,
    "Equiformer 6": partial(equiformer, False),
    "Equiformer 6 parities": partial(equiformer, True),
    "EquiformerV2 12": partial(equiformer_v2, 12),
    "EquiformerV2 20": partial(equiformer_v2, 20),
    "IterativeSE3Transformer 3x4": sized(IterativeSE3Transformer, width=8, **_ATTENTION),
    "PONITA 5": sized(PONITA, channels=8, num_orientations=0, basis_width=8),
    "SE3Transformer 7": sized(SE3Transformer, width=4, **_ATTENTION),
    "TensorFieldNetwork 5": sized(TensorFieldNetwork, width=4, layers=5, hidden=(8,)),
    "TensorFieldNetwork 5 SE(3)": sized(TensorFieldNetwork, width=4, layers=5, hidden=(8,), group="SE(3)"),
    "VectorNeurons 5": sized(VectorNeurons, width=8, layers=5),
}
#: Without rotations: energies depend on the orientation.
FAENET: dict[str, Callable[[], Model]] = {
    "FAENet 5": lambda: FAENet([EveryLayerScalar("energy")], 8, 8, 5, cutoff=CUTOFF, num_basis=8)
}

#: Name -> largest deviation from an invariant energy, in eV: nonlinearities on a grid of the sphere.
GRIDS = {"ESCN 12": 1e-5}


def structures() -> dict[str, Data]:
    """CO2, CH4, SF6, benzene, bcc iron, diamond-type silicon and one atom; an atom on a centre of symmetry is first."""
    axes, angles = torch.eye(3, dtype=torch.float64), torch.arange(6, dtype=torch.float64) * math.pi / 3
    ring = torch.stack([angles.cos(), angles.sin(), torch.zeros_like(angles)], -1)
    corners = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
    faces = torch.tensor([[0.0, 0, 0], [0, 2, 2], [2, 0, 2], [2, 2, 0]], dtype=torch.float64) * 5.431 / 4
    origin = torch.zeros(1, 3, dtype=torch.float64)
    found = {
        "CO2": Data(z=[6, 8, 8], pos=torch.cat([origin, 1.16 * axes[2:], -1.16 * axes[2:]])),
        "CH4": Data(z=[6, 1, 1, 1, 1], pos=torch.cat([origin, corners * 1.09 / math.sqrt(3)])),
        "SF6": Data(z=[16] + [9] * 6, pos=1.56 * torch.cat([origin, axes, -axes])),
        "benzene": Data(z=[6] * 6 + [1] * 6, pos=torch.cat([1.39 * ring, 2.48 * ring])),
        "iron": Data(z=[26, 26], pos=torch.cat([origin, origin + 1.435]), cell=2.87 * axes),
        "silicon": Data(z=[14] * 8, pos=torch.cat([faces, faces + 5.431 / 4]), cell=5.431 * axes),
        "atom": Data(z=[8], pos=origin),
    }
    for data in found.values():
        data.z = torch.tensor(data.z)
        if "cell" in data:
            data.cell, data.pbc = data.cell.unsqueeze(0), torch.ones(1, 3, dtype=torch.bool)
    return found


CENTRED = ("CO2", "CH4", "SF6", "iron", "silicon", "atom")


def batches(dtype: torch.dtype = torch.float64) -> list[tuple[list[str], Batch]]:
    """Return the names and a batch of the molecules, and those of the crystals."""
    found = structures()
    result = []
    for periodic in (False, True):
        names = [name for name, data in found.items() if ("cell" in data) == periodic]
        batch = Batch.from_data_list([found[name] for name in names])
        result.append((names, batch.apply(lambda value: value.to(dtype) if value.is_floating_point() else value)))
    return result


def built(build: Callable[[], Model], seed: int, dtype: torch.dtype = torch.float64) -> Forces:
    torch.manual_seed(seed)
    return Forces(build().to(dtype)).eval()


def predicted(model: Forces, batch: Batch) -> tuple[Tensor, Tensor]:
    outputs = model(batch)
    return outputs["energy"].detach(), outputs["forces"].detach()


def assert_bounded(model: Forces, batch: Batch, forces: Tensor) -> None:
    """Moving all atoms by 1e-8 Å changes forces by no more than 1e-4 eV/Å: curvatures are below 1e4 eV/Å²."""
    moved = batch.clone()
    moved.pos = batch.pos + 1e-8 * torch.randn(batch.pos.shape, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(predicted(model, moved)[1], forces, rtol=0, atol=1e-4)


SEEDS = [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", DEEP)
def test_energies_are_invariant_and_forces_vanish_on_centres(name: str, seed: int) -> None:
    model, tolerance = built(DEEP[name], seed), GRIDS.get(name, 1e-10)
    rotation = random_rotations(1, torch.Generator().manual_seed(seed), torch.float64)[0]
    for names, batch in batches():
        energy, forces = predicted(model, batch)
        turned = batch.clone()
        turned.pos = batch.pos @ rotation.T
        if "cell" in batch:
            turned.cell = batch.cell @ rotation.T
        turned_energy, turned_forces = predicted(model, turned)
        torch.testing.assert_close(turned_energy, energy, rtol=0, atol=tolerance)
        torch.testing.assert_close(turned_forces, forces @ rotation.T, rtol=0, atol=10 * tolerance)
        centres = [int(first) for formula, first in zip(names, batch.ptr, strict=False) if formula in CENTRED]
        assert forces[centres].abs().max() < tolerance
        assert forces.abs().max() < 1e3
        assert_bounded(model, batch, forces)


@pytest.mark.parametrize("name", DEEP | FAENET)
def test_batches_translations_and_permutations_change_nothing(name: str) -> None:
    model = built((DEEP | FAENET)[name], 0)
    for _, batch in batches():
        graphs = batch.to_data_list()
        energy, forces = predicted(model, batch)
        alone = [predicted(model, data) for data in graphs]
        torch.testing.assert_close(torch.cat([each[0] for each in alone]), energy, rtol=0, atol=1e-10)
        torch.testing.assert_close(torch.cat([each[1] for each in alone]), forces, rtol=0, atol=1e-9)
        order = torch.cat([torch.arange(a, b).flip(0) for a, b in zip(batch.ptr[:-1], batch.ptr[1:], strict=True)])
        other = batch.clone()
        other.z, other.pos = batch.z[order], batch.pos[order] + torch.tensor([0.3, -1.1, 0.7]).double()
        again = predicted(model, other)
        torch.testing.assert_close(again[0], energy, rtol=0, atol=1e-10)
        torch.testing.assert_close(again[1], forces[order], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", FAENET)
def test_forces_are_bounded_near_symmetric_structures(name: str) -> None:
    model = built(FAENET[name], 0)
    for _, batch in batches():
        assert_bounded(model, batch, predicted(model, batch)[1])


@pytest.mark.parametrize("name", DEEP)
def test_forces_in_single_precision_are_close(name: str) -> None:
    """In float32, forces on symmetric structures are those of float64 to 1e-3 of the largest."""
    exact, single = built(DEEP[name], 0), built(DEEP[name], 0, torch.float32)
    for (_, double), (_, rounded) in zip(batches(), batches(torch.float32), strict=True):
        expected = predicted(exact, double)[1]
        error = (predicted(single, rounded)[1].double() - expected).abs().max()
        assert error < 1e-3 * max(1.0, float(expected.abs().max()))
