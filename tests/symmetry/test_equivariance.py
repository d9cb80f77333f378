"""The symmetry check passes what is equivariant and finds, by name, what is not."""

from __future__ import annotations

import pytest
import torch
from e3nn import o3
from torch import nn
from torch_geometric.data import Batch, Data

from geoeq.errors import InputError
from geoeq.models import EGNN, GraphScalar, Positions
from geoeq.symmetry import assert_equivariant, equivariance_errors, random_batch


def pooled(data, values):
    return torch.zeros(data.num_graphs, dtype=values.dtype).index_add(0, data.batch, values)


def vector_mean(data):
    """The centre of each graph: turns and moves as a position."""
    count = pooled(data, torch.ones_like(data.pos[:, 0]))
    center = torch.stack([pooled(data, data.pos[:, axis]) for axis in range(3)], -1) / count[:, None]
    return center[data.batch]


BROKEN = {
    "rotation": lambda data: {"energy": pooled(data, (data.pos - vector_mean(data))[:, 0].square())},
    "translation": lambda data: {"energy": pooled(data, data.pos.square().sum(-1))},
    "permutation": lambda data: {"charges": torch.arange(len(data.pos)).double()},
    "batch": lambda data: {"energy": pooled(data, torch.ones(len(data.pos)).double()) / len(data.pos)},
}


@pytest.mark.parametrize("symmetry", BROKEN)
def test_a_broken_symmetry_is_named(symmetry):
    with pytest.raises(AssertionError, match=symmetry):
        assert_equivariant(BROKEN[symmetry])


def test_a_chiral_function_fails_reflection_only():
    def handed(data):
        x = data.pos - vector_mean(data)
        volume = (torch.linalg.cross(x, data.vel) * x.flip(0)).sum(-1) * 0
        turn = (torch.linalg.cross(x, data.vel) * vector_mean_of_cubes(data)).sum(-1)
        return {"energy": pooled(data, volume + turn)}

    def vector_mean_of_cubes(data):
        x = data.pos - vector_mean(data)
        cubes = x * x.square().sum(-1, keepdim=True)
        return torch.stack([pooled(data, cubes[:, axis]) for axis in range(3)], -1)[data.batch]

    errors = equivariance_errors(handed)
    assert errors["reflection", "energy"] > 1e-3
    assert all(error < 1e-9 for (symmetry, _), error in errors.items() if symmetry != "reflection")


def test_positions_may_translate_and_must():
    assert_equivariant(lambda data: {"positions": data.pos})
    with pytest.raises(AssertionError, match="translation of 'positions'"):
        assert_equivariant(lambda data: {"positions": data.pos - vector_mean(data)})


def test_a_layer_of_anybody_with_irreps():
    class Scale(nn.Module):
        irreps_in = irreps_out = o3.Irreps("2x0e + 1x1o + 1x2e")

        def __init__(self, power):
            super().__init__()
            self.power = power

        def forward(self, x, graph):
            return x if self.power == 1 else x**self.power

    assert_equivariant(Scale(1))
    with pytest.raises(AssertionError, match="rotation of 'features'"):
        assert_equivariant(Scale(2))


def test_a_wrong_parity_fails_reflection_only():
    class Wrong(nn.Module):
        irreps_in, irreps_out = o3.Irreps("1x1o"), o3.Irreps("1x1e")

        def forward(self, x, graph):
            return x

    errors = equivariance_errors(Wrong())
    assert errors["reflection", "features"] > 1
    assert errors["rotation", "features"] < 1e-12


def test_nan_fails():
    with pytest.raises(AssertionError, match="inf"):
        assert_equivariant(lambda data: {"energy": torch.full((data.num_graphs,), float("nan"))})


def test_given_edges_are_permuted_with_the_nodes():
    data = random_batch((4, 3))
    chain = torch.tensor([[0, 1, 2, 4, 5], [1, 2, 3, 5, 6]])
    data.edge_index = torch.cat([chain, chain.flip(0)], dim=1)
    model = EGNN([GraphScalar("gap"), Positions()], width=4, layers=2).double()
    assert_equivariant(model, data, symmetries=("rotation", "reflection", "translation", "permutation"))


def test_structures_need_only_what_the_model_needs():
    full = random_batch((4, 3))
    bare = Batch.from_data_list([Data(z=graph.z, pos=graph.pos) for graph in full.to_data_list()])
    assert_equivariant(EGNN([GraphScalar("gap"), Positions()], width=4, layers=2).double(), bare)


def test_the_random_batch_has_all_that_models_ask_for():
    data = random_batch(periodic=True, dtype=torch.float32)
    assert data.pos.dtype == torch.float32
    assert data.num_graphs == 4
    assert (data.ptr.diff() == 1).any()
    assert {"z", "vel", "charge", "x", "cell", "pbc"} <= set(data.keys())
    assert torch.equal(random_batch(seed=3).pos, random_batch(seed=3).pos)
    assert not torch.equal(random_batch(seed=3).pos, random_batch(seed=4).pos)


def test_what_cannot_be_tried_says_so():
    with pytest.raises(InputError, match="neither a layer nor a model"):
        assert_equivariant(3)
    with pytest.raises(InputError, match="Did you mean 'rotation'"):
        assert_equivariant(lambda data: {}, symmetries=("rotations",))


def test_a_layer_may_claim_less():
    """Only rotations alone where its group is SE(3); rotations to the error that it states."""

    class Crossed(nn.Module):
        """The cross product of two vectors, called a vector: right for rotations alone, here slightly off."""

        irreps_in, irreps_out = o3.Irreps("2x1o"), o3.Irreps("1x1o")

        def forward(self, x, graph):
            return torch.linalg.cross(x[:, :3], x[:, 3:]) + 1e-6

    layer = Crossed()
    with pytest.raises(AssertionError, match="reflection"):
        assert_equivariant(layer, random_batch())
    layer.group = "SE(3)"
    with pytest.raises(AssertionError, match="rotation"):
        assert_equivariant(layer, random_batch())
    layer.equivariance_error = 1e-5
    assert_equivariant(layer, random_batch())
