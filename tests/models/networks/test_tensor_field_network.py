"""Tensor field networks with each product: symmetric, smooth, and what their options say."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch_geometric.data import Data

from geoeq.errors import InputError
from geoeq.layers.products import Product
from geoeq.models import GraphScalar, NodeVector, TensorFieldNetwork
from geoeq.symmetry import assert_equivariant, random_batch

CASES = [(name, "E(3)") for name in get_args(Product)] + [("clebsch_gordan", "SE(3)"), ("edge_frame", "SE(3)")]


def network(product, group="E(3)", **options):
    torch.manual_seed(0)
    options = {"cutoff": 4.0, "hidden": [8], "neighbors": 4.0, "num_basis": 4} | options
    heads = [GraphScalar("energy"), NodeVector("forces")]
    model = TensorFieldNetwork(heads, width=4, layers=2, lmax=2, product=product, group=group, **options).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize(("product", "group"), CASES)
def test_every_product_is_equivariant(product, group):
    model = network(product, group)
    assert model.group == group
    assert_equivariant(model, random_batch(periodic=True), tolerance=1e-11)
    inputs = {"node_inputs": ["element", "charge", "features"], "features_irreps": "4x0e", "velocity": True}
    edges = {"cutoff": None, "basis_cutoff": 6.0, "edge_inputs": ["bessel", "square_distance", "charge_product"]}
    assert_equivariant(network(product, group, **inputs, **edges), tolerance=1e-11)


@pytest.mark.parametrize("group", ["E(3)", "SE(3)"])
def test_reflections_are_kept_by_even_paths_alone(group):
    model = network("clebsch_gordan", group)
    check = pytest.raises(AssertionError, match="reflection") if group == "SE(3)" else torch.no_grad()
    with check:
        assert_equivariant(model, random_batch(), symmetries=("reflection",))


def test_both_gaunt_forms_are_one_network():
    grid, fourier = network("gaunt_grid"), network("gaunt_fourier")
    fourier.load_state_dict(grid.state_dict())
    data = random_batch()
    for key, value in grid(data).items():
        torch.testing.assert_close(value, fourier(data)[key], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("product", get_args(Product))
def test_energy_and_forces_are_continuous_at_the_cutoff(product):
    model = network(product)

    def at(distance):
        pos = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, distance, 0]], dtype=torch.float64, requires_grad=True)
        energy = model(Data(pos=pos, z=torch.tensor([6, 1, 8])))["energy"].sum()
        return energy.detach(), torch.autograd.grad(energy, pos)[0]

    (inside, force), (outside, free) = at(4 - 1e-4), at(4 + 1e-4)  # atom 1 stays out of reach of atom 2
    torch.testing.assert_close(inside, outside, rtol=0, atol=1e-9)
    strong = at(1.5)[1].abs().max()
    assert (force - free).abs().max() < 1e-3 * strong
    assert strong > 1e-5


@pytest.mark.parametrize("product", get_args(Product))
def test_mixed_precision_gives_finite_gradients(product):
    model, data = network(product).float(), random_batch(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        energy = model(data)["energy"]
    energy.sum().backward()
    torch.testing.assert_close(energy, model(data)["energy"], rtol=0.1, atol=0.1)
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters())


def test_edge_inputs_are_needed():
    with pytest.raises(InputError, match="edge_inputs is empty"):
        TensorFieldNetwork([GraphScalar("energy")], cutoff=4.0, edge_inputs=[])
    with pytest.raises(InputError, match="needs a cutoff"):
        TensorFieldNetwork([GraphScalar("energy")])
    with pytest.raises(InputError, match="neighbors is 0; it must be a positive, finite number"):
        TensorFieldNetwork([GraphScalar("energy")], cutoff=4.0, neighbors=0)
