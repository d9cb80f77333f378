"""One frame of each structure: networks that know of no symmetry have that of the group, symmetric structures too."""

from __future__ import annotations

import copy
import json
from typing import get_args

import pytest
import torch
from torch import nn
from torch_geometric.data import Batch, Data

from geoeq.errors import EmptyGraphError, InputError
from geoeq.geometry.frames import FrameGroup
from geoeq.geometry.rotations import random_orthogonals
from geoeq.graph import build_graph
from geoeq.models import (
    EGNN,
    Canonicalization,
    FAENet,
    FrameScore,
    FrameVectors,
    GraphScalar,
    Model,
    NetworkCanonicalizer,
    PCACanonicalizer,
    ScoreCanonicalizer,
    VectorNeurons,
    from_config,
)
from geoeq.models.checkpoint import load_checkpoint, save_checkpoint
from geoeq.symmetry import assert_equivariant, equivariance_errors, random_batch, report

GROUPS = get_args(FrameGroup)


def egnn(group="E(3)", **options):
    network = EGNN([FrameVectors()], width=8, layers=2, cutoff=4.0, velocity=options.pop("velocity", False))
    return NetworkCanonicalizer(network, group, **options)


def neurons(group="E(3)", **options):
    return NetworkCanonicalizer(VectorNeurons([FrameVectors()], width=8, cutoff=4.0), group, **options)


def pca(group="E(3)", **options):
    return PCACanonicalizer(group, **options)


CANONICALIZERS = {"egnn": egnn, "neurons": neurons, "pca": pca}


def scores(group="O", axis=None):
    return ScoreCanonicalizer(FAENet([FrameScore()], width=8, filters=8, layers=1, cutoff=4.0), group, axis)


def single(pos, z=None, **others):
    pos = torch.as_tensor(pos, dtype=torch.float64)
    z = torch.ones(len(pos), dtype=torch.int64) if z is None else torch.tensor(z)
    return Batch.from_data_list([Data(pos=pos, z=z, **others)])


HEXAGON = torch.linspace(0, 2 * torch.pi, 7, dtype=torch.float64)[:6]
HEXAGON = torch.stack([HEXAGON.cos(), HEXAGON.sin(), 0 * HEXAGON], dim=-1).tolist()
TETRAHEDRON = [[0, 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]
#: Each is its own mirror image in some way, or lies on a line, or in a plane, or has no extent.
SHAPES = {
    "one atom": ([[0.3, 0.2, 0.1]], None),
    "two equal atoms": ([[0, 0, 0], [0.3, 1.2, -0.4]], None),
    "two unlike atoms": ([[0, 0, 0], [0.3, 1.2, -0.4]], [1, 8]),
    "linear": ([[0, 0, -1.1], [0, 0, 0], [0, 0, 1.3]], [6, 1, 7]),
    "water": ([[0, 0, 0], [0.76, 0.59, 0], [-0.76, 0.59, 0]], [8, 1, 1]),
    "planar": ([[0, 0, 0], [0.76, 0.59, 0], [-0.9, 0.5, 0], [0.1, -1.3, 0]], [8, 1, 6, 7]),
}
HIGH = {"benzene": (HEXAGON, None), "methane": (TETRAHEDRON, [6, 1, 1, 1, 1])}


@pytest.mark.parametrize("kind", CANONICALIZERS)
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("periodic", [False, True])
def test_a_wrapped_network_has_the_symmetry_of_the_group(plain, kind, group, periodic):
    model = Canonicalization(plain(), CANONICALIZERS[kind](group)).double()
    assert model.group == group
    assert_equivariant(model, random_batch(periodic=periodic))


@pytest.mark.parametrize("group", ["C4", "D3d", "T", "Oh"])
def test_scores_have_the_symmetry_of_a_point_group(plain, anyhow, group):
    model = Canonicalization(plain(), scores(group, "x" if group == "C4" else None)).double().eval()
    for training in (False, True):
        assert_equivariant(model.train(training), random_batch())
    found = equivariance_errors(copy.deepcopy(anyhow(model)), random_batch(), symmetries=("rotation",))
    assert max(found.values()) > 1e-3


@pytest.mark.parametrize("axis", ["x", "y", "z"])
@pytest.mark.parametrize("kind", CANONICALIZERS)
def test_a_slab_turns_about_its_axis(plain, anyhow, kind, axis):
    batch = random_batch(periodic=True)
    batch.pbc[:, "xyz".index(axis)] = False
    for group in ("SE(2)", "E(2)"):
        model = Canonicalization(plain(), CANONICALIZERS[kind](group, axis=axis)).double()
        assert_equivariant(model, batch)
    assert max(equivariance_errors(anyhow(model), batch, symmetries=("rotation",)).values()) > 1e-3


def test_a_mirror_image_is_another_where_the_group_has_no_reflections(plain):
    model = Canonicalization(plain(), egnn("SE(3)")).double()
    errors = equivariance_errors(model, random_batch((6, 8)), symmetries=("reflection",))
    assert errors["reflection", "energy"] > 1e-3


@pytest.mark.parametrize("group", ["SE(3)", "E(3)", "SO(3)", "E(2)"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", CANONICALIZERS)
def test_small_flat_and_linear_structures_are_right(plain, kind, shape, group):
    model = Canonicalization(plain(), CANONICALIZERS[kind](group)).double()
    pos, z = SHAPES[shape]
    assert_equivariant(model, single(pos, z))


@pytest.mark.parametrize("kind", ["egnn", "neurons"])
@pytest.mark.parametrize("shape", HIGH)
def test_structures_of_high_symmetry_have_weighted_frames(plain, kind, shape):
    pos, z = HIGH[shape]
    model = Canonicalization(plain(), CANONICALIZERS[kind]()).double()
    assert len(model.frames_of(single(pos, z)).graph) >= 24
    assert_equivariant(model, single(pos, z))
    unsure = Canonicalization(plain(), pca()).double()
    assert float(unsure.frames_of(single(pos, z)).gap) < 1e-12
    assert max(equivariance_errors(unsure, single(pos, z), symmetries=("rotation",)).values()) > 1e-3


@pytest.mark.parametrize("make", [egnn, neurons, pca, scores], ids=lambda make: make.__name__)
def test_geoeq_check_finds_nothing(plain, make):
    checks = ["rotation", "reflection", "translation", "permutation", "batch invariance", "derivatives"]
    checks += ["edges along the axes", "nearly degenerate frames"]
    checks += [] if make is scores else ["continuity"]
    found = report(Canonicalization(plain(), make()), checks=checks)
    assert found.passed, str(found)
    assert len(found.errors) == len(checks) - (make is scores)  # which has no reflections


@pytest.mark.parametrize("kind", CANONICALIZERS)
def test_most_structures_have_one_frame(kind):
    """What frames cost: on average over molecules of ten atoms hardly more than one pass."""
    batch = random_batch((10,) * 40)
    frames = CANONICALIZERS[kind]("SE(3)").double()(batch)
    assert len(frames.graph) < 3 * 40
    assert (frames.weights == 1).sum() > 20
    torch.testing.assert_close(
        torch.zeros(40).double().index_add(0, frames.graph, frames.weights), torch.ones(40).double()
    )


@pytest.mark.parametrize("kind", ["egnn", "neurons", "pca"])
@pytest.mark.parametrize("group", ["SO(3)", "E(3)", "E(2)"])
def test_derivatives_go_through_the_frames(plain, kind, group):
    model, batch = Canonicalization(plain(8), CANONICALIZERS[kind](group)).double(), random_batch((5, 4))
    pos = batch.pos.clone().requires_grad_()

    def run(pos):
        moved = batch.clone()
        moved.pos = pos
        return torch.cat([value.flatten() for value in model(moved).values()])

    assert torch.autograd.gradcheck(run, (pos,), fast_mode=True)
    assert torch.autograd.gradgradcheck(run, (pos,), fast_mode=True)


@pytest.mark.parametrize("kind", CANONICALIZERS)
@pytest.mark.parametrize("shape", [*SHAPES, *HIGH])
def test_derivatives_are_finite_for_every_shape(plain, kind, shape):
    pos, z = (SHAPES | HIGH)[shape]
    model, batch = Canonicalization(plain(), CANONICALIZERS[kind]()).double(), single(pos, z)
    batch.pos.requires_grad_()
    outputs = torch.cat([value.flatten() for value in model(batch).values()])
    (slope,) = torch.autograd.grad(outputs.sin().sum(), batch.pos, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.square().sum(), batch.pos, retain_graph=True)
    gradients = torch.autograd.grad(outputs.sum(), list(model.parameters()), allow_unused=True)
    for value in (outputs, slope, curvature, *(gradient for gradient in gradients if gradient is not None)):
        assert value.isfinite().all()


@pytest.mark.parametrize("start", [HEXAGON, TETRAHEDRON, [[0, 0, -1.1], [0, 0, 0], [0, 0, 1.3]]])
@pytest.mark.parametrize("output", ["energy", "forces", "stress"])
def test_outputs_are_continuous_at_symmetric_shapes(plain, start, output):
    """From any direction the same limit, which is what the symmetric structure itself gives."""
    model = Canonicalization(plain(), neurons()).double()
    turn = random_orthogonals(1, torch.Generator().manual_seed(1), torch.float64)[0]
    pos = torch.as_tensor(start, dtype=torch.float64) @ turn.T
    aside = torch.randn(4, *pos.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        there = model(single(pos))[output]
        far, near = (
            max(float((model(single(pos + step * way))[output] - there).abs().max()) for way in aside)
            for step in (1e-3, 1e-6)
        )
    assert near < 1e-4
    assert near < 1e-2 * far


def test_a_canonical_structure_is_seen_as_it_is():
    """However it is given, the network sees the same coordinates, and one pass of them."""
    pos = random_batch((7,)).pos
    turns = random_orthogonals(5, torch.Generator().manual_seed(2), torch.float64)
    for make in (egnn, pca):
        torch.manual_seed(0)
        inner = Seen()
        model = Canonicalization(inner, make()).double()
        for turn in turns:
            model(single(pos @ turn.T + 3.0, [1, 6, 7, 8, 6, 1, 1]))
        assert all(len(seen) == 7 for seen in inner.seen)
        torch.testing.assert_close(torch.stack(inner.seen), inner.seen[0].expand(5, 7, 3))


class Seen(nn.Module):
    """Keeps what it is given."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, data):
        self.seen.append(data.pos)
        return {}


def test_velocities_turn_the_frame_where_positions_cannot(plain):
    """One atom with a velocity, and with a network that takes it: outputs along it may be anything, across none."""
    data = single([[0.0, 0, 0]], vel=torch.tensor([[0.3, -0.4, 1.2]], dtype=torch.float64))
    model = Canonicalization(plain(), egnn("SE(3)", velocity=True)).double()
    assert_equivariant(model, data)
    dipole = model(data)["dipole"]
    assert dipole.norm() > 1e-3
    assert torch.linalg.cross(dipole, data.vel).norm() < 1e-12


def test_noise_is_equivariant_in_expectation(plain):
    """Of benzene, which has no canonical frame: the mean over many draws turns with it, by the error of the mean."""
    pos, _ = HIGH["benzene"]
    pos = torch.tensor(pos, dtype=torch.float64)
    turn = random_orthogonals(1, torch.Generator().manual_seed(3), torch.float64)[0]
    model = Canonicalization(plain(), egnn("E(3)", noise=0.5, samples=4000)).double().eval()
    assert (model.group, Canonicalization(plain(), egnn("O(3)", noise=0.5)).group) == ("T(3)", "1")
    with torch.no_grad():
        frames = model.frames_of(single(pos)).rotations[:1000]
        draws = [model.model(single(pos @ rotation)) for rotation in frames]
        one, other = model(single(pos)), model(single(pos @ turn.T))
    energies = torch.cat([draw["energy"] for draw in draws])
    dipoles = torch.cat([draw["dipole"] @ rotation.T for draw, rotation in zip(draws, frames, strict=True)])
    assert energies.std() > 1e-2
    assert (one["energy"] - other["energy"]).abs() < 5 * energies.std() * (2 / 4000) ** 0.5
    assert (one["dipole"] @ turn.T - other["dipole"]).abs().max() < 5 * dipoles.std() * (2 / 4000) ** 0.5
    assert one["dipole"].abs().max() < 5 * dipoles.std() / 4000**0.5  # benzene has none


def test_the_variance_falls_with_the_samples(plain):
    def variance(samples):
        torch.manual_seed(0)
        model = Canonicalization(plain(), egnn("E(3)", noise=0.5, samples=samples)).double()
        batch = Batch.from_data_list([single(HEXAGON)[0]] * 400)
        with torch.no_grad():
            return float(model(batch)["energy"].var())

    assert variance(16) == pytest.approx(variance(1) / 16, rel=0.3)


def test_a_seed_fixes_the_noise_in_evaluation(plain):
    model, batch = Canonicalization(plain(), egnn(noise=0.5, seed=1)).double(), random_batch((8, 9))

    def values():
        with torch.no_grad():
            return len({float(model(batch)["energy"][0]) for _ in range(5)})

    model.train()
    assert values() == 5
    model.eval()
    assert values() == 1
    found = report(model, checks=["rotation", "translation", "permutation", "batch invariance"])
    assert found.passed, str(found)
    assert "rotation" not in found.errors


@pytest.mark.parametrize("make", [egnn, neurons])
def test_the_prior_teaches_frames_the_orientation_of_the_data(make):
    """Structures as they come, all turned alike; after training their frames are close to the identity."""
    torch.manual_seed(0)
    base = random_batch((6,), dtype=torch.float32)
    base.z = torch.tensor([1, 6, 7, 8, 6, 16])
    moved = [base.clone() for _ in range(8)]
    for copy_ in moved:
        copy_.pos = base.pos + 0.05 * torch.randn(6, 3)
    batch = Batch.from_data_list([copy_[0] for copy_ in moved])
    model = Canonicalization(nn.Identity(), make("SE(3)"))
    losses = model.auxiliary_losses
    assert set(losses) == {"prior", "prior_angle", "orbit"}
    assert "prior_angle" not in Canonicalization(nn.Identity(), make("E(3)")).auxiliary_losses
    frames = model.frames_of(batch)
    distances = 2 * (3 - frames.rotations.diagonal(dim1=1, dim2=2).sum(-1))
    torch.testing.assert_close(losses["prior"](batch), (frames.weights * distances).sum() / 8)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        losses["prior"](batch).backward()
        optimizer.step()
    assert losses["prior"](batch) < 0.3
    assert losses["prior_angle"](batch) < 0.2
    turned = batch.clone()
    turned.pos = batch.pos @ torch.tensor([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    assert losses["prior"](turned) > 1


@pytest.mark.parametrize("group", GROUPS)
def test_the_orbit_distance_vanishes_for_elements_of_the_group(group, monkeypatch):
    model = Canonicalization(nn.Identity(), egnn(group)).double()
    turns = random_orthogonals(3, torch.Generator().manual_seed(0), torch.float64)
    if "2" in group:
        turns = torch.eye(3, dtype=torch.float64)[[0, 1, 2]].expand(3, 3, 3)
        turns = turns + torch.tensor([0.0, 0.0, 5.0])  # what is along the axis is nothing
    found = {"vectors": turns}
    monkeypatch.setattr(model.canonicalizer.network, "forward", lambda data: found)
    orbit = model.auxiliary_losses["orbit"]
    assert orbit(None).item() < 1e-20
    found["vectors"] = 1.1 * turns
    assert orbit(None).item() > 1e-2


def test_the_orbit_loss_makes_the_vectors_orthonormal():
    torch.manual_seed(0)
    model, batch = Canonicalization(nn.Identity(), neurons("E(3)")), random_batch((7, 8, 9), dtype=torch.float32)
    loss = model.auxiliary_losses["orbit"]
    before = loss(batch).item()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        loss(batch).backward()
        optimizer.step()
    assert loss(batch) < 0.2 * before


def test_the_prior_of_scores_is_a_cross_entropy():
    torch.manual_seed(0)
    canonicalizer, batch = scores("T"), random_batch((6, 7), dtype=torch.float32)
    model = Canonicalization(nn.Identity(), canonicalizer)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    assert model.auxiliary_losses["prior"](batch).item() == pytest.approx(2.48, abs=0.3)  # log 12
    for _ in range(40):
        optimizer.zero_grad()
        model.auxiliary_losses["prior"](batch).backward()
        optimizer.step()
    assert model.auxiliary_losses["prior"](batch) < 0.7
    torch.testing.assert_close(model.frames_of(batch).rotations, torch.eye(3).expand(2, 3, 3))


def test_scores_learn_from_what_the_network_says(plain):
    """In training gradients reach the scores; positions are not differentiated through them."""
    model = Canonicalization(plain(), scores("O")).double()
    batch = random_batch((6, 7))
    batch.pos.requires_grad_()
    slopes = []
    for training in (True, False):
        model.train(training)
        outputs = sum(value.sum() for value in model(batch).values())
        slopes.append(torch.autograd.grad(outputs, batch.pos, retain_graph=True)[0])
        gradients = torch.autograd.grad(outputs, list(model.canonicalizer.parameters()), allow_unused=True)
        assert any(gradient is not None and gradient.abs().max() > 0 for gradient in gradients) == training
    torch.testing.assert_close(*slopes)


def wrapped():
    torch.manual_seed(0)
    return Canonicalization(EGNN([GraphScalar("energy")], width=8, layers=1), neurons("SE(3)", threshold=0.03))


def test_a_checkpoint_has_both_networks(tmp_path):
    model, data = wrapped(), random_batch((5, 1, 9), dtype=torch.float32)
    data.energy = torch.randn(3)
    model.fit_heads(data)
    save_checkpoint(model, tmp_path)
    again, _ = load_checkpoint(tmp_path)
    assert again.config() == model.config()
    assert (again.group, again.canonicalizer.threshold, again.elements) == ("SE(3)", 0.03, model.elements)
    assert torch.equal(again(data)["energy"], model(data)["energy"])
    kinds = {"PCACanonicalizer": pca("E(2)", axis="x"), "ScoreCanonicalizer": scores("C3v", "y")}
    for name, canonicalizer in kinds.items():
        config = json.loads(json.dumps(Canonicalization(wrapped().model, canonicalizer).config()))
        assert config["init_args"]["canonicalizer"]["class_path"] == f"geoeq.models.{name}"
        made = from_config(config, Model)
        assert (made.group, made.axis) == (canonicalizer.group, canonicalizer.axis)


@pytest.mark.parametrize("make", [NetworkCanonicalizer, ScoreCanonicalizer])
def test_edges_that_were_made_for_the_network_inside_are_not_those_of_the_frames(make):
    """A loader makes edges for the cutoff of the model; a canonicalizer that has none sees all atoms nevertheless."""
    score = FAENet([FrameScore()], width=8, filters=8, layers=1, basis_cutoff=6.0)
    network = EGNN([FrameVectors()], width=8, layers=2) if make is NetworkCanonicalizer else score
    inner = EGNN([GraphScalar("energy")], width=8, layers=1, cutoff=1.5)
    model = Canonicalization(inner, make(network)).double()
    batch = random_batch((8, 9))
    graph = build_graph(batch, 1.5)
    expected = model.frames_of(batch)
    batch.edge_index = torch.stack([graph.sender, graph.receiver])
    batch.edge_cutoff = torch.full((2,), 1.5, dtype=torch.float64)
    torch.testing.assert_close(model.frames_of(batch).rotations, expected.rotations)
    del batch.edge_cutoff  # edges of one's own are taken
    if make is NetworkCanonicalizer:
        assert (model.frames_of(batch).rotations - expected.rotations).abs().max() > 1e-3
    model(batch)


def test_losses_of_the_network_inside_come_along():
    class WithLoss(EGNN):
        @property
        def auxiliary_losses(self):
            return {"own": lambda data: data.pos.square().sum(), "prior": lambda data: None}

    torch.manual_seed(0)
    model = Canonicalization(WithLoss([GraphScalar("energy")], width=8, layers=1), pca()).double()
    batch = random_batch((6, 7))
    losses = model.auxiliary_losses
    assert set(losses) == {"own", "prior"}
    assert losses["prior"](batch) is not None  # that of the frames
    centred = torch.cat([part - part.mean(0) for part in batch.pos.split([6, 7])])
    frames = model.frames_of(batch)
    assert frames.weights.tolist() == [1, 1]
    torch.testing.assert_close(losses["own"](batch), centred.square().sum())


def test_examples_work():
    for kind in (PCACanonicalizer, NetworkCanonicalizer, ScoreCanonicalizer):
        model = Canonicalization(EGNN([GraphScalar("energy")], width=8, layers=1), kind.example())
        assert model(random_batch((5, 3), dtype=torch.float32))["energy"].shape == (2,)
    assert Canonicalization.example()(random_batch((3,), dtype=torch.float32))["energy"].shape == (1,)


def test_what_cannot_be_meant_is_refused(plain):
    with pytest.raises(InputError, match=r"No group is called 'E\(4\)'"):
        pca("E(4)")
    with pytest.raises(InputError, match=r"axis is 'z', but E\(3\)"):
        egnn("E(3)", axis="z")
    with pytest.raises(InputError, match="threshold is 1"):
        egnn(threshold=1.0)
    with pytest.raises(InputError, match=r"EGNN needs the head FrameVectors\(\)"):
        NetworkCanonicalizer(EGNN([GraphScalar("energy")]))
    with pytest.raises(InputError, match=r"FAENet is equivariant under T\(3\).* frames of E\(3\)"):
        NetworkCanonicalizer(FAENet([FrameVectors()], cutoff=4.0))
    with pytest.raises(InputError, match="more than one sample needs noise"):
        egnn(samples=2)
    with pytest.raises(InputError, match=r"EGNN needs the head FrameScore\(\)"):
        ScoreCanonicalizer(EGNN([GraphScalar("energy")]))
    with pytest.raises(InputError, match=r"EGNN respects rotations"):
        ScoreCanonicalizer(EGNN([FrameScore()]))
    with pytest.raises(InputError, match="No point group is called 'E'"):
        scores("E")
    with pytest.raises(EmptyGraphError):
        Canonicalization(plain(), pca())(Data(pos=torch.zeros(0, 3), z=torch.zeros(0, dtype=torch.int64)))
    with pytest.raises(InputError, match="Canonicalization has no node features"):
        wrapped().encode(None, None)
