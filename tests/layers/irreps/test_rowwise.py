"""Row-wise layers compute the maps, gates, norms and dropout of their docstrings."""

from __future__ import annotations

import pytest
import torch
from e3nn import nn as e3nn_nn
from e3nn import o3

from geoeq.errors import InputError
from geoeq.graph import build_graph
from geoeq.layers import (
    Activation,
    DegreeNorm,
    EquivariantDropout,
    EquivariantGraphNorm,
    EquivariantLayerNorm,
    EquivariantRMSNorm,
    Gate,
    Linear,
    NormActivation,
    RadialNetwork,
    StochasticDepth,
)
from geoeq.symmetry import assert_equivariant, random_batch

IRREPS = o3.Irreps("4x0e + 2x0o + 3x1o + 2x2e")


@pytest.fixture(autouse=True)
def float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def graph():
    return build_graph(random_batch(), 4.0)


def test_linear_equals_e3nn():
    ours = Linear("4x0e + 2x1o + 3x0e + 1x2e", "3x0e + 2x1o + 1x2e + 2x0e")
    torch.nn.init.normal_(ours.bias)
    theirs = o3.Linear(ours.irreps_in, ours.irreps_out, biases=True)
    flat = []
    for instruction in theirs.instructions:
        if instruction.i_in >= 0:  # else a bias
            mine = ours.sources[instruction.i_out]
            before = sum(ours.irreps_in[n].mul for n in mine if n < instruction.i_in)
            rows = ours.weights[instruction.i_out][before : before + ours.irreps_in[instruction.i_in].mul]
            flat.append(rows.flatten() / instruction.path_weight)
    with torch.no_grad():
        theirs.weight.copy_(torch.cat(flat))
        theirs.bias.copy_(ours.bias)
    x = torch.randn(5, ours.irreps_in.dim)
    torch.testing.assert_close(ours(x), theirs(x))


def test_gate_equals_e3nn():
    gate = Gate("4x0e + 3x1o + 2x2e + 2x3e")
    silu, sigmoid = torch.nn.functional.silu, torch.sigmoid
    theirs = e3nn_nn.Gate("4x0e", [silu], "7x0e", [sigmoid], "3x1o + 2x2e + 2x3e")
    x = torch.randn(5, gate.irreps_in.dim)
    assert gate.irreps_in.simplify() == theirs.irreps_in.simplify()
    torch.testing.assert_close(gate(x), theirs(x), rtol=1e-6, atol=1e-6)  # its factors have single precision


def test_norm_activation_acts_only_on_the_norm():
    layer = NormActivation("2x0e + 3x1o", "silu", eps=1e-9)
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(5, 11)
    out = layer(x)
    norm = x[:, 2:].reshape(5, 3, 3).norm(dim=-1)
    expected = torch.nn.functional.silu(norm + layer.bias[2:]).abs()
    torch.testing.assert_close(out[:, 2:].reshape(5, 3, 3).norm(dim=-1), expected)
    with pytest.raises(InputError, match="NormActivation: eps is 0; it must be a positive, finite number"):
        NormActivation("1x1o", eps=0)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("norm", [DegreeNorm, EquivariantLayerNorm, EquivariantRMSNorm])
def test_norms_normalize(norm, affine):
    layer = norm(IRREPS, eps=1e-12, affine=affine)
    x = torch.randn(5, IRREPS.dim) * torch.linspace(1, 20, IRREPS.dim) + 3
    blocks = [layer(x)[:, part].square().mean(-1) for part in IRREPS.slices()]
    if norm is EquivariantRMSNorm:
        torch.testing.assert_close(sum(blocks) / 4, torch.ones(5))
        torch.testing.assert_close(layer(7 * x), layer(x))
    else:
        for square in blocks:
            torch.testing.assert_close(square, torch.ones(5))
    mean = layer(x)[:, :4].mean(-1)
    assert (mean.abs().max() < 1e-12) == (norm is EquivariantLayerNorm)
    assert len(list(layer.parameters())) == 2 * affine


@pytest.mark.parametrize("shift", [True, False])
def test_graph_norm_normalizes_over_each_graph(graph, shift):
    layer = EquivariantGraphNorm(IRREPS, eps=1e-12, shift=shift)
    x = 5 * torch.randn(graph.num_nodes, IRREPS.dim) + 2
    out = layer(x, graph)
    for number in range(graph.num_graphs):
        mine = out[graph.batch == number]
        if len(mine) > 1:
            torch.testing.assert_close(mine[:, :4].mean(0), torch.zeros(4))
            torch.testing.assert_close(mine[:, 6:15].reshape(-1, 3, 3).square().mean((0, 2)), torch.ones(3))
    assert_equivariant(EquivariantGraphNorm.example())


def test_dropout_drops_whole_copies():
    layer = EquivariantDropout(IRREPS, 0.4)
    x = torch.ones(2000, IRREPS.dim)
    out = layer(x)
    vectors = out[:, 6:15].reshape(-1, 3, 3)
    assert ((vectors == 0).all(-1) | (vectors == 1 / 0.6).all(-1)).all()
    torch.testing.assert_close(out.mean(), torch.tensor(1.0), rtol=0.02, atol=0)
    assert not torch.equal(vectors[:, 0], vectors[:, 1])
    assert torch.equal(layer.eval()(x), x)
    with pytest.raises(InputError, match="rate is 1; it must be a probability from 0 to below 1"):
        EquivariantDropout(IRREPS, 1)


def test_stochastic_depth_drops_whole_graphs(graph):
    layer = StochasticDepth("2x0e", 0.5)
    x = torch.ones(graph.num_nodes, 2)
    seen = set()
    for _ in range(30):
        out = layer(x, graph)
        for number in range(graph.num_graphs):
            value = out[graph.batch == number].unique()
            assert len(value) == 1
            seen.add(float(value))
    assert seen == {0.0, 2.0}
    assert torch.equal(layer.eval()(x, graph), x)


def test_radial_network_starts_with_different_weights():
    with_offset, without = RadialNetwork(4, [8], 6), RadialNetwork(4, [8], 6, offset=False)
    zero = torch.zeros(1, 4)
    assert with_offset(zero).unique().numel() == 6
    assert torch.equal(without(zero), torch.zeros(1, 6))


def test_non_equivariant_options_are_refused():
    with pytest.raises(InputError, match=r"pointwise 'silu' of 1o, 2e \(in 4x0e\+2x1o\+1x2e\)"):
        Activation("4x0e + 2x1o + 1x2e")
    with pytest.raises(InputError, match="'silu' is neither even nor odd"):
        Activation("2x0e + 1x0o", "silu")
    assert Activation("2x0o", "abs").irreps_out == o3.Irreps("2x0e")
    with pytest.raises(InputError, match=r"No linear map from 4x0e\+2x1o reaches 1e, 2e of"):
        Linear("4x0e + 2x1o", "4x0e + 2x1e + 1x2e")
    with pytest.raises(InputError, match="Did you mean 'silu'"):
        Gate("2x0e + 1x1o", activation="silo")


@pytest.mark.parametrize("bias", [-1.0, 0.0, 1.0])
def test_features_that_vanish_by_symmetry_are_not_enlarged(bias):
    """What is 1e-12 of the scalars stays so; a norm of each degree would multiply it by 300."""
    x = torch.randn(5, IRREPS.dim)
    scalar = torch.zeros(IRREPS.dim, dtype=torch.bool)
    scalar[IRREPS.slices()[0]] = True
    x[:, ~scalar] *= 1e-12
    before = x[:, ~scalar].norm() / x[:, scalar].norm()
    out = EquivariantRMSNorm(IRREPS)(x)
    torch.testing.assert_close(out[:, ~scalar].norm() / out[:, scalar].norm(), before)
    assert (DegreeNorm(IRREPS)(x)[:, ~scalar].abs() > 100 * x[:, ~scalar].abs()).all()
    layer = NormActivation(IRREPS)
    torch.nn.init.constant_(layer.bias, bias)
    assert (layer(x)[:, ~scalar].abs() < 2 * x[:, ~scalar].abs()).all()
