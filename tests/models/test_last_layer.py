"""The uncertainty from a last layer: its features, its formula, and which models have it."""

from __future__ import annotations

import pytest
import torch

import geoeq.models
from geoeq.errors import FieldError, InputError
from geoeq.models import EGNN, Forces, FrameAveraging, GraphScalar, LastLayer, NodeScalar, SphereScalar
from geoeq.models.last_layer import last_layer_head
from geoeq.random_structures import random_batch
from geoeq.symmetry import assert_equivariant
from geoeq.training.checkpoint import load_checkpoint, save_checkpoint


def network(head=None, **options):
    torch.manual_seed(0)
    return EGNN([head or GraphScalar("energy")], **{"width": 6, "layers": 1, "cutoff": 4.0, **options}).double()


@pytest.fixture
def batch():
    return random_batch((4, 7, 1, 5))


def jacobian(model, batch, target):
    """Derivatives of each output by the weights of the last layer, by automatic differentiation, [G, W]."""
    head = last_layer_head(model, target)
    last = (head.network if head.pooled is None else head.pooled)[-1]
    rows = []
    for value in model(batch)[target]:
        weight, bias = torch.autograd.grad(value, [last.weight, last.bias], retain_graph=True)
        rows.append(torch.cat([weight.squeeze(0), bias]))
    return torch.stack(rows)


HEADS = {
    "sum": lambda: GraphScalar("energy"),
    "mean": lambda: GraphScalar("gap"),
    "pooled": lambda: GraphScalar("energy", after_pooling=True),
}


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("framed", [False, True])
def test_features_are_derivatives_by_the_last_weights(kind, framed, batch):
    head = HEADS[kind]()
    model = FrameAveraging(network(head)) if framed else network(head)
    head.scale.fill_(2.0)
    outputs, features = LastLayer(model, head.name).features(batch)
    torch.testing.assert_close(2.0 * features, jacobian(model, batch, head.name), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(outputs[head.name], model(batch)[head.name], rtol=0, atol=0)
    assert set(outputs) == {head.name}


@pytest.mark.parametrize("name", [*geoeq.models.NETWORKS, *geoeq.models.COORDINATE_NETWORKS])
def test_every_network_has_it_through_its_scalar_head(name, batch, float64):
    cls = getattr(geoeq.models, name)
    example = cls.example()
    arguments = {**example.arguments, "heads": [GraphScalar("energy")]}
    model = cls(**arguments).double().eval()
    outputs, features = LastLayer(model).features(batch)
    head = last_layer_head(model, "energy")
    last = head.network[-1]
    linear = features @ torch.cat([last.weight.squeeze(0), last.bias])
    torch.testing.assert_close(outputs["energy"], head.scale * linear, rtol=1e-9, atol=1e-9)


def test_the_variance_is_that_of_the_formula(batch):
    model = LastLayer(network())
    assert bool(model(batch)["energy_uncertainty"].isnan().all())
    train = torch.randn(20, 7, dtype=torch.float64)
    model.set_covariance(train.mT @ train, 0.3, 1.7)
    _, f = model.features(batch)
    inverse = torch.linalg.inv(train.mT @ train + 0.3 * torch.eye(7, dtype=torch.float64))
    wanted = 1.7 * torch.einsum("gi,ij,gj->g", f, inverse, f).sqrt()
    torch.testing.assert_close(model(batch)["energy_uncertainty"], wanted, rtol=1e-10, atol=0)


def test_what_was_learnt_is_more_certain_than_what_was_not(batch):
    model = LastLayer(network())
    _, f = model.features(batch)
    model.set_covariance(f[:2].mT @ f[:2], 1e-6, 1.0)
    known = model(batch)["energy_uncertainty"]
    assert float(known[:2].detach().max()) <= 1.0 + 1e-9
    assert float(known[2:].detach().min()) > 1.5


def test_forces_go_around_it(batch):
    plain = network()
    model = LastLayer(plain)
    model.set_covariance(torch.eye(7), 1.0, 1.0)
    with_uncertainty, without = Forces(model)(batch), Forces(plain)(batch)
    torch.testing.assert_close(with_uncertainty["forces"], without["forces"], rtol=0, atol=0)
    assert with_uncertainty["energy_uncertainty"].shape == (4,)


def test_it_is_equivariant_and_comes_back_from_a_checkpoint(tmp_path, batch, float64):
    model = LastLayer.example().double()
    assert_equivariant(model)
    save_checkpoint(Forces(model), tmp_path)
    again, _ = load_checkpoint(tmp_path)
    torch.testing.assert_close(again(batch), Forces(model)(batch), rtol=0, atol=0)


def test_its_matrix_keeps_its_digits_in_float32(batch, tmp_path):
    model = LastLayer(network())
    model.set_covariance(torch.eye(7) / 3, 1e-9, 1.0)
    root = model.root.clone()
    assert torch.equal(model.float().root, root)
    save_checkpoint(model, tmp_path)
    assert torch.equal(load_checkpoint(tmp_path)[0].root, root)


def test_what_it_refuses():
    with pytest.raises(FieldError, match="No head of EGNN gives 'gap': they give energy"):
        LastLayer(network(), "gap")
    with pytest.raises(InputError, match=r"Forces\(LastLayer\(model\)\)"):
        LastLayer(Forces(network()))
    with pytest.raises(InputError, match="has an uncertainty of its 'energy' already"):
        LastLayer(LastLayer(network()))
    with pytest.raises(InputError, match="not for NodeScalar: take an ensemble"):
        LastLayer(network(NodeScalar("charges")), "charges")
    sphere = geoeq.models.EquiformerV2([SphereScalar("energy")], lmax=1, mmax=1, channels=4, layers=1, cutoff=4.0)
    with pytest.raises(InputError, match="not for SphereScalar"):
        LastLayer(sphere)
    with pytest.raises(InputError, match=r"these are 0\.0 and 1\.0"):
        LastLayer(network()).set_covariance(torch.eye(7), 0.0, 1.0)
