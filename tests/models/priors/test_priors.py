"""Priors: energies that are known are added to what a network learns, and forces and stress are those of the sum."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch_geometric.data import Batch, Data

from geoeq.errors import FieldError, InputError, TensorError
from geoeq.geometry.random_structures import random_batch
from geoeq.graph import build_graph
from geoeq.models import (
    EGNN,
    ZBL,
    Forces,
    GraphScalar,
    Model,
    NodeScalar,
    NodeVector,
    Prior,
    WithPriors,
    from_config,
)
from geoeq.symmetry import report
from geoeq.units import conversion


def network(*heads, dtype=torch.float64, **options):
    torch.manual_seed(0)
    model = EGNN(list(heads) or [GraphScalar("energy", atomic=True)], width=8, layers=1, cutoff=4.0, **options)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.to(dtype)


def close(periodic=False, sizes=(5, 1, 9, 2)):
    """Structures in which atoms come so close that nuclei repel each other."""
    data = random_batch(sizes, periodic=periodic)
    data.pos = data.pos * 0.6
    if periodic:
        data.cell = data.cell * 0.6
    return data


def pair(first, second, distance):
    pos = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, distance]], dtype=torch.float64)
    return Data(z=torch.tensor([first, second]), pos=pos)


def published(first, second, distance):
    """The universal potential of Ziegler, Biersack and Littmark in eV, with NumPy, without a cutoff."""
    x = distance * (first**0.23 + second**0.23) / (0.8854 * 0.529177)
    terms = (0.18175, 3.1998), (0.50986, 0.94229), (0.28022, 0.4029), (0.02817, 0.20162)
    return 14.39964 * first * second / distance * sum(c * np.exp(-d * x) for c, d in terms)


def envelope(d, p=6):
    return (
        1 - (p + 1) * (p + 2) / 2 * d**p + p * (p + 2) * d ** (p + 1) - p * (p + 1) / 2 * d ** (p + 2) if d < 1 else 0
    )


@pytest.mark.parametrize(("first", "second"), [(1, 1), (8, 6), (14, 14), (79, 1)])
@pytest.mark.parametrize("distance", [0.1, 0.5, 0.9, 1.5, 3.0])
def test_zbl_is_the_published_potential(first, second, distance):
    prior = ZBL(cutoff=2.0)
    expected = published(first, second, distance) * envelope(distance / 2.0)
    atoms = prior(pair(first, second, distance), {})
    assert atoms.shape == (2,)
    torch.testing.assert_close(atoms[0], atoms[1])
    torch.testing.assert_close(atoms.sum().item(), float(expected), rtol=2e-6, atol=1e-12)


def test_zbl_begins_as_the_repulsion_of_bare_nuclei():
    """Much closer than a screening length, which is 0.13 Å for silicon, and with the slope of φ at zero."""
    length = 0.8854 * 0.529177 / (2 * 14**0.23)
    for distance in (1e-5, 1e-4):
        bare = 14**2 * conversion("Ha*a0", "eV*Å") / distance
        ratio = ZBL(cutoff=50.0)(pair(14, 14, distance), {}).sum().item() / bare
        assert (1 - ratio) * length / distance == pytest.approx(1.1806, rel=2e-3)


def test_zbl_ends_smoothly_at_the_sum_of_covalent_radii():
    """Value, slope and curvature vanish for oxygen and carbon at 0.66 + 0.76 Å."""
    inside, at, outside = (ZBL()(pair(8, 6, 1.42 + step), {}).sum().item() for step in (-1e-3, 0.0, 1e-3))
    assert at == outside == 0
    assert 0 < inside < published(8, 6, 1.42) * 100 * 1e-9  # as the third power of a thousandth
    assert ZBL()(pair(8, 6, 1.3), {}).sum() > 0


@pytest.mark.parametrize("periodic", [False, True])
def test_forces_and_stress_are_those_of_the_whole(periodic):
    model = Forces(WithPriors(network(), [ZBL(), ZBL(cutoff=2.0)]), stress=True)
    data = close(periodic)
    found = report(model, data, checks=["forces", "stress", "rotation", "batch invariance"])
    assert found.passed, found
    outputs, inner = model(data), model.model.model(data)
    assert outputs["energy"].dtype == torch.float64
    assert (outputs["energy"] - inner["energy"]).max() > 1
    sums = torch.zeros(data.num_graphs, dtype=torch.float64).index_add(0, data.batch, outputs["atomic_energies"])
    torch.testing.assert_close(sums, outputs["energy"])


def test_forces_can_be_trained_on():
    """The loss of forces has the gradients that finite differences of a weight give, with a prior beside."""
    model, data = Forces(WithPriors(network(), [ZBL()])), close()
    weight = model.model.model.heads[0].network[0].bias

    def loss():
        return model(data)["forces"].square().sum()

    (gradient,) = torch.autograd.grad(loss(), weight)
    values = []
    for step in (1e-4, -1e-4):
        with torch.no_grad():
            weight[0] += step
        values.append(loss().item())
        with torch.no_grad():
            weight[0] -= step
    assert gradient[0].item() == pytest.approx((values[0] - values[1]) / 2e-4, rel=1e-5)


def test_edges_of_the_data_serve_if_they_suffice():
    data = close(True)
    expected = ZBL()(data, {})
    for cutoff in (4.0, 0.5):  # more than enough, and too few: others are found
        graph = build_graph(data, cutoff)
        given = data.clone()
        given.edge_index = torch.stack([graph.sender, graph.receiver])
        given.edge_cutoff = torch.full((data.num_graphs,), cutoff, dtype=torch.float64)
        cells = data.cell[data.batch[graph.receiver]]
        moved = graph.vectors - (data.pos[graph.sender] - data.pos[graph.receiver])
        given.edge_shifts = torch.linalg.solve(cells.mT, moved).round()
        torch.testing.assert_close(ZBL()(given, {}), expected)


def test_heads_are_fitted_to_what_priors_leave():
    """Energies and forces of ZBL and of elements alone: references are those of the elements, to the last digits."""
    data = close(sizes=(5, 3, 7, 2, 6, 9, 4) * 40)
    weights = -100.0 * torch.arange(119, dtype=torch.float64)
    prior = ZBL()
    moved = data.clone()
    moved.pos = data.pos.clone().requires_grad_()
    atoms = prior(moved, {})
    (gradient,) = torch.autograd.grad(atoms.sum(), moved.pos)
    noise = torch.randn(data.pos.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    data.energy = torch.zeros(data.num_graphs).double().index_add(0, data.batch, atoms.detach() + weights[data.z])
    data.forces = noise - gradient
    model = WithPriors(network(), [prior])
    model.fit_heads(data)
    head = model.heads[0]
    seen = data.z.unique()
    torch.testing.assert_close(head.references[seen], weights[seen])
    torch.testing.assert_close(head.scale, noise.square().mean().sqrt())
    assert model.elements == tuple(seen.tolist())
    plain = network()
    plain.fit_heads(data)
    assert (plain.heads[0].references[seen] - weights[seen]).abs().max() > 1


def test_configuration_and_weights_make_it_again():
    model, data = WithPriors(network(), [ZBL(cutoff=1.5, power=5)]), close()
    config = json.loads(json.dumps(model.config()))
    assert config["class_path"] == "geoeq.models.WithPriors"
    assert config["init_args"]["priors"][0]["class_path"] == "geoeq.models.ZBL"
    again = from_config(config, Model).double()
    state = model.state_dict()
    assert not [name for name in state if name.startswith("priors")]  # constants are no weights
    again.load_state_dict(load(save({key: value.contiguous() for key, value in state.items()})))
    for name, value in model(data).items():
        assert torch.equal(again(data)[name], value)
    assert again.title == "EGNN + ZBL"


def test_a_network_in_float32_has_priors_in_float64():
    data = close()
    data32 = data.clone()
    data32.pos = data.pos.float().double()
    model = WithPriors(network(), [ZBL()])
    single = WithPriors(network(), [ZBL()]).float()
    given = data32.clone()
    for key in ("pos", "vel", "charge", "x"):
        given[key] = data32[key].float()
    difference = model(data32)["energy"] - model.model(data32)["energy"]
    other = single(given)["energy"] - single.model(given)["energy"]
    torch.testing.assert_close(other, difference, rtol=1e-10, atol=1e-9)


def test_a_prior_of_ones_own():
    class Spring(Prior):
        def __init__(self, strength: float) -> None:
            super().__init__()
            self.strength = strength

        @classmethod
        def example(cls):
            return cls(1.0)

        def forward(self, data, outputs):
            return self.strength * data.pos.square().sum(1)

    data = close()
    model = Forces(WithPriors(network(), [Spring(0.5)]))
    alone = Forces(network())(data)
    torch.testing.assert_close(model(data)["forces"], alone["forces"] - data.pos)


def test_what_cannot_be_is_refused():
    with pytest.raises(FieldError, match="priors are added to an 'energy'"):
        WithPriors(network(GraphScalar("gap")), [ZBL()])
    with pytest.raises(FieldError, match=r"predicts forces directly.*Forces\(WithPriors"):
        WithPriors(network(GraphScalar("energy"), NodeVector("forces")), [ZBL()])
    with pytest.raises(FieldError, match="priors are added to an 'energy'"):
        WithPriors(torch.nn.Sequential(network(NodeScalar("charges"))), [ZBL()])(close())
    with pytest.raises(InputError, match="has no prior"):
        WithPriors(network(), [])
    with pytest.raises(InputError, match=r"Linear is not a geoeq\.models\.Prior"):
        WithPriors(network(), [torch.nn.Linear(1, 1)])
    with pytest.raises(InputError, match=r"ZBL: cutoff is .*; it must be a positive, finite number"):
        ZBL(cutoff=0.0)
    with pytest.raises(TensorError, match=r"needs data\.z"):
        ZBL()(Data(pos=torch.zeros(1, 3).double()), {})


def test_atomic_energies_are_parts_of_the_energy():
    data = close()
    data.energy = torch.randn(data.num_graphs, generator=torch.Generator().manual_seed(0)).double() * 50 - 1000
    for per_element in (True, False):
        given = data.clone()
        if not per_element:
            del given.z
        head = GraphScalar("energy", atomic=True)
        torch.manual_seed(0)
        model = EGNN([head], width=8, layers=1, node_inputs=["element"] if per_element else ["charge"]).double()
        model.fit_heads(given)
        outputs = model(given)
        assert set(outputs) == set(model.fields) == {"energy", "atomic_energies"}
        atoms = outputs["atomic_energies"]
        sums = torch.zeros(data.num_graphs, dtype=torch.float64).index_add(0, data.batch, atoms)
        torch.testing.assert_close(sums, outputs["energy"], rtol=1e-12, atol=0)
        plain = EGNN(
            [GraphScalar("energy")], **{key: model.arguments[key] for key in ("width", "layers", "node_inputs")}
        )
        plain.double().load_state_dict(model.state_dict())
        assert torch.equal(plain(given)["energy"], outputs["energy"])
    for options in ({"reduce": "mean"}, {"after_pooling": True}):
        with pytest.raises(InputError, match="parts of a sum over atoms"):
            GraphScalar("energy", atomic=True, **options)
    with pytest.raises(InputError, match="parts of a sum over atoms"):
        GraphScalar("gap", atomic=True)


def test_charges_are_conserved():
    model, data = network(NodeScalar("charges", conserve=True)), close()

    def sums(given):
        return torch.zeros(given.num_graphs, dtype=torch.float64).index_add(0, given.batch, model(given)["charges"])

    torch.testing.assert_close(sums(data), torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-12)
    data.total_charge = torch.tensor([1.0, -1.0, 0.0, 2.0], dtype=torch.float64)
    torch.testing.assert_close(sums(data), data.total_charge, rtol=0, atol=1e-12)
    free = network(NodeScalar("charges"))(data)["charges"]
    difference = free - model(data)["charges"]  # what was too much is shared equally
    torch.testing.assert_close(difference[data.batch == 2], difference[data.batch == 2].mean().expand(9))
    single = data[2]
    assert model(Batch.from_data_list([single]))["charges"].sum().abs() < 1e-12
    data.total_charge = torch.zeros(3).double()
    with pytest.raises(TensorError, match=r"total_charge has shape \[3\]: it must be \[4\]"):
        model(data)
    with pytest.raises(InputError, match="Only the sum of charges"):
        NodeScalar("features", conserve=True)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_compiles_whole_with_given_edges(dtype):
    """Positions are float64, so that a model in float32 converts them."""
    model, data = WithPriors(network(elements=[1, 6, 7, 8, 16]), [ZBL()]).to(dtype), close()
    graph = build_graph(data, 4.0)
    data.edge_index = torch.stack([graph.sender, graph.receiver])
    data.edge_cutoff = torch.full((data.num_graphs,), 4.0)
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")(data)
    for name, value in model(data).items():
        torch.testing.assert_close(compiled[name], value)
