"""Heads give their quantity with its symmetry, unit references and errors."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Batch, Data

from geoeq import fields
from geoeq.errors import CellError, FieldError, InputError, TensorError, UnknownElementError
from geoeq.models import (
    EGNN,
    Dipole,
    GraphScalar,
    NodeFeatures,
    NodeScalar,
    NodeVector,
    Positions,
    SE3Transformer,
    default_head,
)
from geoeq.symmetry import assert_equivariant, random_batch


def network(*heads, **options):
    torch.manual_seed(0)
    model = EGNN(list(heads), width=8, layers=2, **options).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def training_set(with_mean=0.0):
    """Energies that are exactly -1, -2, .. for each element, plus a constant."""
    data = random_batch((5, 3, 7, 2, 6, 9))
    weights = -torch.arange(119, dtype=torch.float64)
    data.energy = torch.zeros(6, dtype=torch.float64).index_add(0, data.batch, weights[data.z]) + with_mean
    data.gap = 5 + torch.arange(6, dtype=torch.float64)
    return data


@pytest.mark.parametrize(
    "head",
    [
        GraphScalar("energy"),
        GraphScalar("gap"),
        GraphScalar("gap", reduce="sum", after_pooling=True),
        NodeScalar("charges"),
        NodeVector("forces"),
        Positions(),
        Dipole(),
        Dipole("dipole_norm"),
        NodeFeatures(4),
    ],
    ids=lambda head: type(head).__name__,
)
def test_every_head_is_equivariant(head):
    model = network(head)
    assert_equivariant(model)
    assert all(value.abs().max() > 1e-6 for value in model(random_batch()).values())


def test_what_grows_with_the_atoms_is_a_sum_and_the_rest_a_mean():
    assert GraphScalar("energy").reduce == "sum"
    assert GraphScalar("gap").reduce == "mean"
    model = network(GraphScalar("energy"), GraphScalar("gap"), cutoff=3.0)
    data = random_batch((4,))
    far = Batch.from_data_list([Data(**{**data[0].to_dict(), "pos": data.pos + shift}) for shift in (0, 100.0)])
    twice = Data(**{key: torch.cat([g[key] for g in far.to_data_list()]) for key in ("z", "pos")})
    one, two = model(data), model(twice)
    torch.testing.assert_close(two["energy"], 2 * one["energy"])
    torch.testing.assert_close(two["gap"], one["gap"])


def test_references_are_found_and_stored():
    model = network(GraphScalar("energy"), GraphScalar("gap"))
    data = training_set()
    model.fit_heads(data)
    energy, gap = model.heads
    counted = sorted(data.z.unique().tolist())
    torch.testing.assert_close(energy.references[counted], -torch.tensor(counted).double(), rtol=0, atol=1e-9)
    assert float(gap.shift) == pytest.approx(7.5)
    assert float(gap.scale) == pytest.approx(torch.arange(6.0).std(correction=0))
    assert {"heads.0.references", "heads.1.shift", "heads.1.scale"} <= set(model.state_dict())
    with torch.no_grad():
        for head in model.heads:
            head.network[2].weight.zero_()
            head.network[2].bias.zero_()
        torch.testing.assert_close(model(data)["energy"], data.energy, rtol=0, atol=1e-8)
        torch.testing.assert_close(model(data)["gap"], torch.full((6,), 7.5).double())


def test_only_elements_of_the_training_set_are_accepted_afterwards():
    model = network(GraphScalar("energy"))
    model.fit_heads(training_set())
    data = random_batch()
    data.z[0] = 92
    with pytest.raises(UnknownElementError, match="U"):
        model(data)
    assert 92 not in model.config()["init_args"]["elements"]


def test_a_missing_or_broken_target_is_named():
    model = network(GraphScalar("energy"))
    with pytest.raises(TensorError, match="no target 'energy'"):
        model.fit_heads(random_batch())
    data = training_set()
    data.energy[2] = float("nan")
    with pytest.raises(TensorError, match="'energy' of training graph 2"):
        model.fit_heads(data)


def test_the_dipole_of_two_charges():
    """With charges in place of the network's, the dipole is Σ q r."""
    model = network(Dipole(), update_positions=False)
    data = Data(z=torch.tensor([1, 9]), pos=torch.tensor([[0.0, 0, 0], [0.9, 0, 0]]).double())
    captured = {}
    model.heads[0].network.register_forward_hook(lambda _m, _i, out: captured.update(out=out))
    dipole = model(data)["dipole"]
    charge = captured["out"][:, :1] - captured["out"][:, :1].mean()
    torch.testing.assert_close(dipole, (charge * data.pos).sum(0, keepdim=True))


@pytest.mark.parametrize("name", ["dipole", "dipole_norm"])
def test_a_crystal_has_no_dipole(name):
    """It would depend on which periodic image of an atom is listed."""
    model, data = network(Dipole(name), cutoff=4.0), random_batch((4, 3), periodic=True)
    with pytest.raises(CellError, match=r"Graph 0 is periodic.*pbc to False for a molecule"):
        model(data)
    data.pbc[:] = False
    assert model(data)[name].isfinite().all()


@pytest.mark.parametrize("name", sorted(fields.FIELDS))
def test_every_field_has_a_head_or_says_that_it_has_none(name):
    try:
        head = default_head(name)
    except FieldError as error:
        assert name in str(error)  # noqa: PT017
    else:
        assert head.names == (name,)


def test_wrong_names_and_levels():
    with pytest.raises(FieldError, match="Did you mean 'gap'"):
        GraphScalar("gapp")
    with pytest.raises(FieldError, match=r"'forces' is a node quantity.*default_head"):
        GraphScalar("forces")
    with pytest.raises(FieldError, match="Two heads predict 'gap'"):
        network(GraphScalar("gap"), GraphScalar("gap"))
    with pytest.raises(InputError, match="reduce must be"):
        GraphScalar("gap", reduce="max")


@pytest.mark.parametrize("head", [GraphScalar("energy"), NodeScalar("charges"), NodeVector("forces"), NodeFeatures(2)])
def test_features_without_scalars_are_refused(head):
    """Without scalars, an output would be the same number for all structures."""
    with pytest.raises(InputError, match=rf"{type(head).__name__} needs scalars \(0e\); the network gives 4x1o"):
        SE3Transformer([head], 4, 1, 1, attention_heads=1, irreps_out="4x1o", cutoff=4.0)


def test_a_linear_head_with_factors_of_elements():
    """energy = Σ_atoms reference[z] + scale · factor[z] · (w · x + b), and its last layer has the factors."""
    model = network(head := GraphScalar("energy", linear=True, element_scales=True, atomic=True))
    data = random_batch()
    head.scale.fill_(2.0)
    head.element_scales.copy_(torch.rand(119))
    head.references.copy_(-torch.arange(119))
    found = []
    hook = head.network.register_forward_hook(lambda module, inputs, output: found.append((inputs[0], output)))
    outputs = model(data)
    hook.remove()
    (inputs, terms), linear = found[0], head.network[0]
    torch.testing.assert_close(terms, inputs @ linear.weight.mT + linear.bias, rtol=1e-12, atol=1e-12)
    expected = 2 * head.element_scales[data.z] * terms.squeeze(-1) - data.z
    torch.testing.assert_close(outputs["atomic_energies"], expected, rtol=1e-12, atol=1e-12)
    sums = torch.zeros(data.num_graphs, dtype=torch.float64).index_add(0, data.batch, expected)
    torch.testing.assert_close(outputs["energy"], sums, rtol=1e-12, atol=1e-12)


def test_options_of_a_scalar_head_that_exclude_each_other():
    with pytest.raises(InputError, match="leave out linear and element_scales"):
        GraphScalar("gap", after_pooling=True, linear=True)
    with pytest.raises(InputError, match="terms of a sum over atoms: leave it out for a mean"):
        GraphScalar("gap", element_scales=True)
    model, data = network(GraphScalar("energy", element_scales=True), node_inputs=("charge",)), random_batch()
    data.z = None
    with pytest.raises(TensorError, match=r"element_scales needs the elements \(data\.z\)"):
        model(data)
