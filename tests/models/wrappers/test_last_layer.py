"""The uncertainty from a last layer: its features, its formula, and which models have it."""

from __future__ import annotations

import pytest
import torch

import geoeq.models
from geoeq.errors import FieldError, InputError
from geoeq.geometry.random_structures import random_batch
from geoeq.models import (
    EGNN,
    Dipole,
    EveryLayerScalar,
    Forces,
    FrameAveraging,
    GraphScalar,
    LastLayer,
    NodeScalar,
    SampledScalar,
    SphereScalar,
)
from geoeq.models.checkpoint import load_checkpoint, save_checkpoint
from geoeq.models.wrappers.last_layer import last_layer_head
from geoeq.symmetry import assert_equivariant


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
    return derivatives(model(batch)[target], [last.weight, last.bias])


def derivatives(outputs, weights):
    """Of each output [G] by all of the weights, [G, W]."""
    rows = [torch.autograd.grad(value, weights, retain_graph=True) for value in outputs]
    return torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])


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


def with_heads(name, *heads):
    """The example of a network, with other heads where there are some, and weights with which no branch is off."""
    torch.manual_seed(0)
    model = getattr(geoeq.models, name).example()
    if heads:
        model = type(model)(**{**model.arguments, "heads": list(heads)})
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.double().eval()


EVERY = [*geoeq.models.NETWORKS, *geoeq.models.COORDINATE_NETWORKS]
WRAPPED = ["FrameAveraging", "GroupAveraging", "Canonicalization", "SoftEquivariance", "TinvNN", "WithPriors"]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "PONITA")) for name in (*EVERY, *WRAPPED)]
)
def test_every_family_has_it_with_the_head_of_its_own(name, batch, float64):
    """The energy is linear in the features, which do not turn with the structure."""
    model = with_heads(name)
    target = next(key for key, known in model.fields.items() if (known.level, known.irreps) == ("graph", "0e"))
    head = last_layer_head(model, target)
    head.scale.fill_(0.7)
    certain = LastLayer(model, target)
    outputs, features = certain.features(batch)
    energy = outputs[target].detach()
    if name == "WithPriors":
        energy = energy - model.atomic(batch, {}).new_zeros(4).index_add(0, batch.batch, model.atomic(batch, {}))
    torch.testing.assert_close(energy, (0.7 * features @ head.last_weights()).detach(), rtol=1e-12, atol=1e-12)
    width = len(certain.root)
    certain.set_covariance(torch.eye(width), 1.0, 1.0)
    assert float(features.detach()[:, :-1].std(0).max()) > 1e-3
    assert_equivariant(certain, batch)


@pytest.mark.parametrize("name", EVERY)
def test_every_family_has_it_with_the_common_head(name, batch, float64):
    model = with_heads(name, GraphScalar("energy"))
    outputs, features = LastLayer(model).features(batch)
    weights = last_layer_head(model, "energy").last_weights()
    torch.testing.assert_close(outputs["energy"], features @ weights, rtol=1e-12, atol=1e-12)


def sphere_network(head):
    torch.manual_seed(0)
    return geoeq.models.ESCN([head], lmax=2, mmax=1, layers=1, channels=4, cutoff=4.0).double()


def layered_network(head):
    torch.manual_seed(0)
    return geoeq.models.FAENet([head], width=6, filters=6, layers=2, num_basis=4, cutoff=4.0).double()


#: head -> network, and the weights of its last linear map.
OTHERS = {
    "sampled": (SampledScalar("energy"), sphere_network, lambda head: [head.network[0].last.weight]),
    "fibonacci": (SampledScalar("gap", samples=32), sphere_network, lambda head: [head.network[0].last.weight]),
    "layers": (EveryLayerScalar("energy"), layered_network, lambda head: [*head.network[0].last.parameters()]),
    "layers, biased": (
        EveryLayerScalar("energy", weights="final", bias=True),
        layered_network,
        lambda head: [*head.network[0].last.parameters(), head.pooled.bias],
    ),
    "sum of layers": (
        EveryLayerScalar("gap", combine="sum", weights="initial"),
        layered_network,
        lambda head: [*head.network[0].last.parameters()],
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_features_of_other_heads_are_derivatives_too(kind, batch, float64):
    head, network_of, weights = OTHERS[kind]
    model = network_of(head)
    outputs, features = LastLayer(model, head.name).features(batch)
    torch.testing.assert_close(features, derivatives(outputs[head.name], weights(head)), rtol=1e-10, atol=1e-12)


def test_those_of_a_sphere_are_derivatives_too(batch, float64):
    head = SphereScalar("energy", feed_forward_channels=5, resolution=10)
    model = sphere_network(head)
    outputs, features = LastLayer(model).features(batch)
    last = head.network[0].network.last
    wanted = derivatives(outputs["energy"], [last.weight, last.bias])
    assert float(wanted[:, 5:-1].abs().max()) == 0  # degrees above 0
    torch.testing.assert_close(features, torch.cat([wanted[:, :5], wanted[:, -1:]], 1), rtol=1e-10, atol=1e-12)


class Squared(GraphScalar):
    """The square of what it derives from, which is linear in no last layer."""

    def forward(self, x, graph):
        return {name: value**2 for name, value in super().forward(x, graph).items()}


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
    with pytest.raises(FieldError, match="No head of EGNN predicts 'gap': they predict energy"):
        LastLayer(network(), "gap")
    with pytest.raises(InputError, match=r"Forces\(LastLayer\(model\)\)"):
        LastLayer(Forces(network()))
    with pytest.raises(InputError, match="has an uncertainty of its 'energy' already"):
        LastLayer(LastLayer(network()))
    with pytest.raises(InputError, match="'charges' is not a scalar of each structure"):
        LastLayer(network(NodeScalar("charges")), "charges")
    with pytest.raises(InputError, match="'atomic_energies' is not a scalar of each structure"):
        LastLayer(network(GraphScalar("energy", atomic=True)), "atomic_energies")
    with pytest.raises(InputError, match="Dipole does not define a last layer"):
        LastLayer(network(Dipole("dipole_norm")), "dipole_norm")
    with pytest.raises(InputError, match="Squared changes the computation of its base class"):
        LastLayer(network(Squared("energy")))
    with pytest.raises(InputError, match=r"the latter are 0\.0 and 1\.0"):
        LastLayer(network()).set_covariance(torch.eye(7), 0.0, 1.0)
