"""The report passes what is right, and finds and names what is not."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from torch import nn
from torch_geometric.data import Batch, Data

import geoeq.models
from geoeq import kernels
from geoeq.errors import FieldError, InputError
from geoeq.geometry.groups import random_element
from geoeq.geometry.rotations import matrix_to_irreps, wigner_blocks
from geoeq.graph import build_graph
from geoeq.layers import EGNNLayer
from geoeq.models import EGNN, GraphScalar, NodeScalar
from geoeq.symmetry import CHECKS, random_batch, report

CUTOFF = 4.0
SCALES = torch.tensor([2.0, 1.0, 2.0])


def total(values, graph):
    return kernels.segment_sum(values, graph.batch, graph.num_graphs)


def potential(data, fault=""):
    """A small network without parameters: an energy, and a vector for each atom; each fault is a line."""
    graph = build_graph(data, None if fault == "complete" else CUTOFF)
    i, j, d, vectors = graph.receiver, graph.sender, graph.lengths.unsqueeze(-1), graph.vectors
    weight = (1 - (d / CUTOFF).square()).clamp(min=0) ** 4 * (1 + 0.1 * data.z[j].unsqueeze(-1))
    if fault in ("jump", "complete"):
        weight = 1 / (1 + d.square())
    if fault == "cap":
        place = torch.arange(len(i)) - graph.row_pointers[i]
        weight = weight * (place < 3).unsqueeze(-1)
    density = kernels.segment_sum(weight, graph)  # [N, 1]
    frame = wigner_blocks(vectors, 1)[1]  # [E, 3, 3], takes an edge to the y axis
    turned = (frame @ data.vel[j].unsqueeze(-1)).squeeze(-1) * SCALES.to(d)
    back = frame if fault == "transposed" else frame.mT
    message = (back @ turned.unsqueeze(-1)).squeeze(-1)
    if fault == "parity":
        message = torch.linalg.cross(vectors, data.vel[j])
    energy = total((1 + density).log(), graph).squeeze(-1)
    if fault == "absolute":
        energy = energy + 0.01 * total(data.pos.square().sum(-1, keepdim=True) * density, graph).squeeze(-1)
    if fault == "centred":
        centroid = total(data.pos, graph) / total(torch.ones_like(density), graph)
        energy = energy + 0.01 * total((data.pos - centroid[graph.batch]).square() * density, graph).sum(-1)
    if fault == "count":  # a kink where the weights sum to one
        energy = energy + 1e-3 * total(density.clamp(min=1).log(), graph).squeeze(-1)
    if fault == "angle":  # a kink where the vectors to the neighbours cancel
        pull = kernels.segment_sum((1 - (d / CUTOFF).square()).clamp(min=0) ** 4 * vectors, graph)
        energy = energy + total((pull.square().sum(-1, keepdim=True) + 1e-24).sqrt(), graph).squeeze(-1)
    if fault == "batch":
        energy = energy - density.mean()
    if fault == "mean":
        energy = energy / total(torch.ones_like(density), graph).squeeze(-1)
    if fault == "norm":  # over the atoms of a structure, which is the same for two copies of it
        count = total(torch.ones_like(density), graph)
        energy = energy + total(density - (total(density, graph) / count)[graph.batch].exp(), graph).squeeze(-1)
    if fault == "detach":
        energy = energy + total(density.detach().square(), graph).squeeze(-1)
    if fault == "cancellation":
        energy = (energy + 1e6) - 1e6
    if fault == "pole":
        angle = (vectors[:, 1:2] / d).clamp(-1, 1).acos()
        energy = energy + total(kernels.segment_sum(weight * (angle.cos() ** 2 + angle.sin() ** 2), graph), graph)[:, 0]
    if fault == "nan":
        energy = energy / 0 * 0
    if fault == "raises" and (data.ptr.diff() == 7).any():
        raise RuntimeError("seven atoms are too many")
    return {"energy": energy, "velocities": kernels.segment_sum(weight * message, graph)}


def frames(data):
    """A vector that is weighted along the principal axes of each structure, which need not be unique."""
    result = []
    for graph in data.to_data_list():
        x = graph.pos - graph.pos.mean(0)
        _, axes = torch.linalg.eigh(x.T @ x + 1e-12 * torch.eye(3).to(x))
        result.append(x @ axes @ torch.diag(SCALES.to(x) * torch.arange(1, 4).to(x)) @ axes.T)
    return {"velocities": torch.cat(result)}


TURNS = {"rotation", "reflection", "edges along the axes", "nearly degenerate frames"}
PASSAGES = "smooth passages"

#: fault -> the checks that have to fail, and those that may besides.
FAULTS = {
    "transposed": ({*TURNS, PASSAGES}, set()),  # the frames of edges have a seam
    "absolute": ({"translation", "size extensivity", "periodic images", "wrapping"}, set()),
    "centred": ({"size extensivity", "periodic images", "wrapping"}, set()),
    "cap": ({"permutation"}, {"size extensivity", "smoothness at the cutoff", "continuity", PASSAGES}),
    "parity": ({"reflection"}, set()),
    "batch": ({"batch invariance", "size extensivity"}, {"derivatives", "smoothness at the cutoff", PASSAGES}),
    "mean": ({"size extensivity"}, set()),
    "norm": ({"size extensivity"}, set()),
    "complete": ({"size extensivity"}, set()),
    "jump": ({"smoothness at the cutoff"}, {"continuity"}),
    "count": ({"smoothness at the cutoff"}, {PASSAGES}),
    "angle": ({PASSAGES}, {"edges along the axes", "nearly degenerate frames", "smoothness at the cutoff"}),
    "detach": ({"derivatives", "energy drift"}, set()),
    "cancellation": ({"float32 against float64"}, set()),
    "pole": ({"edges along the axes", PASSAGES}, {"nearly degenerate frames"}),
}


def test_a_right_function_passes():
    found = report(potential)
    assert found.passed, str(found)
    assert found.errors["rotation"] < 1e-12
    assert found["forces"].status == "not applicable"
    assert found["stress"].status == "not applicable"
    assert set(found.errors) == set(CHECKS) - {"forces", "stress"}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_and_named(fault):
    needed, allowed = FAULTS[fault]
    checks = [name for name in CHECKS if name in needed or name != "energy drift"]  # which takes the longest
    found = report(lambda data: potential(data, fault), checks=checks)
    assert needed <= set(found.failed) <= needed | allowed, str(found)
    assert not found.passed
    assert all(CHECKS[name].meaning in str(found) for name in needed)


def test_frames_that_are_not_unique():
    found = report(frames, group="SE(3)")
    assert found["rotation"].status == "passed"
    assert "continuity" in found.failed
    assert "nearly degenerate frames" in found.failed


def test_a_wrong_parity_is_right_for_rotations_alone():
    found = report(lambda data: potential(data, "parity"), group="SE(3)")
    assert found.passed
    assert found["reflection"].detail == "it does not claim reflections: its group is SE(3)"


def test_nan_fails():
    found = report(lambda data: potential(data, "nan"), checks=["rotation", "size extensivity", "continuity"])
    assert set(found.failed) == {"rotation", "size extensivity", "continuity"}
    assert found.errors["rotation"] == math.inf
    json.dumps(found.to_dict(), allow_nan=False)


def test_special_structures_have_tags_where_the_others_do():
    def tagged(data):
        return {name: value + 0 * data.tags.sum() for name, value in potential(data).items()}

    checks = ["edges along the axes", "size extensivity", "smoothness at the cutoff"]
    assert report(tagged, checks=checks).passed


def test_what_is_raised_on_some_structure_is_reported():
    found = report(lambda data: potential(data, "raises"), checks=["rotation", "edges along the axes"])
    assert found.failed == ("edges along the axes",)
    assert "it raised RuntimeError: seven atoms are too many" in str(found)


def test_round_off_and_bugs_are_told_apart():
    found = report(lambda data: potential(data, "transposed"), checks=["float32 against float64"])
    said = dict(part.strip().split(" ", 1) for part in found["float32 against float64"].detail.split(";"))
    assert said["rotation"].endswith(": a bug, not round-off")
    assert said["reflection"].endswith(": a bug, not round-off")
    assert said["translation"].endswith(": round-off")
    assert said["permutation"].endswith(": round-off")


def test_what_computes_in_float32_is_held_to_float32():
    def rounded(data):
        single = data.clone()
        single.pos, single.vel = data.pos.float(), data.vel.float()
        return {name: value.to(data.pos) for name, value in potential(single).items()}

    found = report(rounded, checks=["rotation", "float32 against float64"])
    assert found.passed
    assert found["rotation"].tolerance == 1e-4
    assert "computes in float32" in found["float32 against float64"].detail


@pytest.mark.parametrize("name", geoeq.models.NETWORKS)
def test_networks_pass(name):
    torch.manual_seed(0)
    model = getattr(geoeq.models, name).example()
    found = report(model)
    assert found.passed, str(found)
    assert len(found.errors) >= (10 if model.group != "T(3)" else 8)
    assert ("rotation" in found.errors) == (model.group != "T(3)")


@pytest.mark.parametrize("name", geoeq.models.COORDINATE_NETWORKS)
def test_of_networks_of_coordinates_what_centroid_and_frames_cost_is_found(name):
    """The centroid is felt at any distance; where principal axes are not unique, frames jump."""
    torch.manual_seed(0)
    found = report(getattr(geoeq.models, name).example())
    frames = {"edges along the axes", "nearly degenerate frames", "continuity", PASSAGES} if name == "FAGNN" else set()
    assert set(found.failed) == {"size extensivity"} | frames, str(found)
    assert "not tested on periodic structures: CellError" in str(found)


def test_a_kink_in_the_count_of_neighbours_is_found():
    """As EGNN is by default, which moves atoms so little that the jump is a thousandth of the change of the force."""
    for count, failed in (("clamped", ("smoothness at the cutoff",)), ("smooth", ())):
        torch.manual_seed(0)
        model = EGNN([GraphScalar("energy")], width=16, layers=3, cutoff=5.0, count=count)
        assert report(model, checks=["smoothness at the cutoff", PASSAGES]).failed == failed


def smooth_lj():
    return LennardJones(smooth=True, rc=4.0, ro=3.0)


@pytest.mark.parametrize("calculator", [EMT, smooth_lj], ids=["EMT", "LJ"])
def test_calculators_pass(calculator):
    found = report(calculator())
    # ASE's EMT is cut off where its switching function is 1e-4.
    cut = {"smoothness at the cutoff"} if calculator is EMT else set()
    assert set(found.failed) == cut, str(found)
    assert {"forces", "stress", "size extensivity", "energy drift"} <= set(found.errors)


def test_elements_that_a_calculator_lacks_are_left_out_and_said():
    found = report(EMT(), checks=["rotation"])
    assert "element 16 omitted" in str(found)


class WrongStress(LennardJones):
    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        if "stress" in self.results:
            self.results["stress"] = -self.results["stress"]


class WrongForces(LennardJones):
    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        self.results["forces"] = 1.001 * self.results["forces"]


def test_faults_of_calculators_are_found():
    mechanics = ["rotation", "forces", "stress", "energy drift"]
    arguments = {"smooth": True, "rc": 4.0, "ro": 3.0}
    assert report(WrongStress(**arguments), checks=mechanics).failed == ("stress",)
    assert report(WrongForces(**arguments), checks=mechanics).failed == ("forces", "energy drift")
    cut = report(LennardJones(), checks=["smoothness at the cutoff"])["smoothness at the cutoff"]
    assert cut.status == "failed"  # ASE shifts the energy to zero at the cutoff, but not the force
    assert cut.errors["energy"] < 1e-6 < cut.errors["forces"]


def test_a_stress_as_irreps_is_that_of_the_matrix():
    class Irreps(nn.Module):
        def forward(self, data):
            calculator, stress, energy = smooth_lj(), [], []
            from geoeq.data.structures import to_atoms

            for graph in data.to_data_list():
                atoms = to_atoms(graph)
                atoms.calc = calculator
                energy.append(atoms.get_potential_energy())
                stress.append(atoms.get_stress(voigt=False) if atoms.pbc.all() else np.zeros((3, 3)))
            return {"energy": torch.tensor(energy), "stress": matrix_to_irreps(torch.tensor(np.array(stress)))}

    found = report(Irreps(), checks=["rotation", "stress"])
    assert found.passed, str(found)
    assert set(found.errors) == {"rotation", "stress"}


def test_forces_of_a_head_may_be_asked_to_be_conservative():
    model = geoeq.models.Equiformer.example()
    assert report(model, checks=["forces"])["forces"].status == "not applicable"
    assert report(model, checks=["forces"], conservative=True).failed == ("forces",)


def test_structures_of_ones_own():
    graphs = [Data(z=graph.z, pos=graph.pos) for graph in random_batch((4, 3)).to_data_list()]
    model = EGNN([GraphScalar("energy")], width=4, layers=1, cutoff=4.0)
    for data in (graphs, graphs[0], Batch.from_data_list(graphs)):
        assert report(model, data, checks=["rotation", "continuity"]).passed
    assert not report(lambda data: potential(data, "absolute"), random_batch((3,)), checks=["translation"]).passed


def test_nothing_that_applies_is_no_pass():
    assert not report(potential, checks=["forces"]).passed


def test_what_cannot_be_tried_says_so():
    with pytest.raises(InputError, match="Did you mean 'rotation'"):
        report(potential, checks=["rotations"])
    with pytest.raises(InputError, match="is a layer"):
        report(EGNNLayer.example())
    with pytest.raises(InputError, match="neither a model nor a calculator"):
        report(3)
    with pytest.raises(InputError, match="fails on every structure: KeyError: 'nothing'"):
        report(lambda data: {"energy": data["nothing"]})
    with pytest.raises(FieldError, match="Did you mean 'energy'"):
        report(lambda data: {"enrgy": data.pos.new_zeros(data.num_graphs)})


def test_group_elements_are_uniform():
    """The trace of uniform rotations has mean 0 and variance 1."""
    data, generator = random_batch((3,)), torch.Generator().manual_seed(0)
    for symmetry, sign in (("rotation", 1.0), ("reflection", -1.0)):
        rotations = torch.stack([random_element(symmetry, data, generator).rotation for _ in range(4000)])
        assert torch.allclose(torch.linalg.det(rotations), torch.tensor(sign, dtype=torch.float64))
        traces = rotations.diagonal(dim1=1, dim2=2).sum(-1)
        assert abs(traces.mean()) < 0.06
        assert abs(traces.square().mean() - 1) < 0.1


def test_slabs_and_labelled_structures_are_doubled_along_a_periodic_direction():
    data = random_batch((4, 3), periodic=True)
    data.pbc[:] = torch.tensor([False, True, False])
    data.name, data.energy = ["a", "b"], torch.zeros(2)
    model = EGNN([GraphScalar("energy")], width=4, layers=1, cutoff=4.0)
    assert report(model, data, checks=["size extensivity"]).passed


def test_positions_that_are_predicted_are_fine():
    assert report(lambda data: {"positions": data.pos + 0.1 * data.vel}).passed


def test_what_does_not_depend_on_the_positions_is_said():
    found = report(lambda data: {"energy": data.pos.new_ones(data.num_graphs)}, checks=["rotation"])
    assert "energy hardly depends on the positions" in str(found)
    assert "hardly depends" not in str(report(potential, checks=["rotation"]))


def test_charged_and_neutral_structures_are_checked_together():
    """A charge-conserving model: two copies of an ion have twice its charge."""
    torch.manual_seed(0)
    model = EGNN([GraphScalar("energy"), NodeScalar("charges", conserve=True)], width=8, layers=1, cutoff=4.0)
    ion, neutral = random_batch((5, 4), dtype=torch.float64).to_data_list()
    ion.total_charge = torch.ones(1, dtype=torch.float64)
    result = report(model.double(), [ion, neutral], checks=["rotation", "batch invariance", "size extensivity"])
    assert result.passed, str(result)
