"""The first layer that breaks a symmetry is found, with the irreps that do it."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from e3nn import o3
from torch import nn

import geoeq.models
from geoeq import kernels
from geoeq.errors import InputError
from geoeq.geometry.rotations import wigner_blocks
from geoeq.graph import build_graph
from geoeq.layers import EGNNLayer
from geoeq.models import GraphScalar, NodeVector, TensorFieldNetwork
from geoeq.symmetry import layer_report, random_batch

IRREPS = o3.Irreps("4x0e + 4x1o + 4x2e")


class Faulty(nn.Module):
    """Adds something to the features, rightly or wrongly."""

    irreps_in = irreps_out = IRREPS

    def __init__(self, fault):
        super().__init__()
        self.fault = fault

    def forward(self, x, graph):
        scalars, vectors, rest = x[:, :4], x[:, 4:16].reshape(-1, 4, 3), x[:, 16:]
        i, j = graph.receiver, graph.sender
        weight = graph.lengths.reciprocal()
        if self.fault == "cap":
            weight = weight * (torch.arange(len(i)) - graph.row_pointers[i] < 2)
        frame = wigner_blocks(graph.vectors, 1)[1]
        turned = frame @ vectors[j].mT * torch.tensor([[2.0], [1.0], [2.0]], dtype=x.dtype)
        turned = ((frame if self.fault == "transposed" else frame.mT) @ turned).mT  # [E, 4, 3]
        if self.fault == "parity":
            turned = torch.linalg.cross(graph.vectors.unsqueeze(1).expand_as(turned), turned)
        vectors = vectors + kernels.segment_sum((weight[:, None, None] * turned).flatten(1), graph).reshape(-1, 4, 3)
        if self.fault == "absolute":
            scalars = scalars + graph.positions.square().sum(-1, keepdim=True)
        if self.fault == "product":  # of a scalar and a component of a vector
            scalars = scalars * vectors[:, :, 0]
        return torch.cat([scalars, vectors.flatten(1), rest], dim=-1)


class Network(TensorFieldNetwork):
    """A tensor field network with something between its two layers."""

    def __init__(self, between, outside=False):
        sizes = {"width": 4, "layers": 2, "lmax": 2, "product": "clebsch_gordan", "hidden": [8], "num_basis": 4}
        super().__init__([GraphScalar("energy"), NodeVector("forces")], neighbors=4.0, cutoff=4.0, **sizes)
        self.layers.insert(1, between)
        self.outside = outside

    def encode(self, data, graph):
        x = super().encode(data, graph)
        return x + x[:, 4:5] if self.outside else x


#: fault -> symmetry: input irreps that are to blame, output irreps that are wrong.
FAULTS = {
    "transposed": {"rotation": (("4x1o",), ("4x1o",)), "reflection": (("4x1o",), ("4x1o",))},
    "absolute": {"translation": ((), ("4x0e",))},
    "cap": {"permutation": (("4x1o",), ("4x1o",))},
    "parity": {"reflection": (("4x1o",), ("4x1o",))},
    "product": {"rotation": (("4x0e", "4x1o"), ("4x0e",)), "reflection": (("4x0e", "4x1o"), ("4x0e",))},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_culprit_and_its_irreps_are_named(fault):
    torch.manual_seed(0)
    found = layer_report(Network(Faulty(fault)).double())
    assert not found.passed
    assert {key: (one.irreps_in, one.irreps_out) for key, one in found.culprits.items()} == FAULTS[fault]
    for culprit in found.culprits.values():
        assert (culprit.name, culprit.kind) == ("layers.1", "Faulty")
        assert f"layers.1 (Faulty) breaks it: its input is right, {'':.0}" in culprit.explanation
        assert culprit.explanation in str(found)
    json.dumps(found.to_dict(), allow_nan=False)


def test_what_comes_from_the_graph_is_said():
    torch.manual_seed(0)
    found = layer_report(Network(Faulty("absolute")).double())
    assert "even if its input is zero" in found.culprits["translation"].explanation


def test_a_fault_between_layers():
    torch.manual_seed(0)
    found = layer_report(Network(Faulty(""), outside=True).double())
    assert found.culprits["rotation"].name == "before heads.0"
    assert "look at the code between the layers" in found.culprits["rotation"].explanation


def test_edge_attributes_that_turn_are_named():
    class Leaking(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = EGNNLayer(4, edge_width=3)

        def forward(self, data):
            graph = build_graph(data, 4.0)
            graph = dataclasses.replace(graph, edge_attr=graph.vectors)
            x = torch.cat([data.x, torch.zeros_like(data.pos)], dim=-1)
            return {"features": self.layer(x, graph)[:, :4]}

    network = Leaking().double()
    found = layer_report(network, symmetries=("rotation",))
    assert found.culprits["rotation"].name == "layer"
    assert "the attributes of its edges are not invariant" in found.culprits["rotation"].explanation


@pytest.mark.parametrize("name", geoeq.models.NETWORKS)
def test_layers_of_networks_pass(name):
    torch.manual_seed(0)
    model = getattr(geoeq.models, name).example().double()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = layer_report(model)
    assert found.passed, str(found)
    assert ("rotation" in found.layers) == (model.group != "T(3)")
    kinds = {row.kind for row in found.layers["translation"]}
    assert len(kinds) >= 3
    assert all(row.output <= row.tolerance for rows in found.layers.values() for row in rows)
    assert not any("on_sphere" in vars(module) or module._forward_hooks for module in model.modules())
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())


def test_reflections_are_left_out_where_they_are_not_claimed():
    assert "reflection" not in layer_report(geoeq.models.SE3Transformer.example().double()).layers
    assert "reflection" in layer_report(geoeq.models.EGNN.example().double()).layers


def test_a_network_without_layers_says_so():
    with pytest.raises(InputError, match="no layer with irreps_in and irreps_out"):
        layer_report(nn.Identity(), random_batch())
