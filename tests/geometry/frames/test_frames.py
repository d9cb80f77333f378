"""Frames of structures: orthogonal, as many as the group has, turning with the structure, and weighted continuously."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest
import torch

from geoeq.errors import InputError
from geoeq.geometry.frames import FrameGroup, eigenvectors, frames_gap, inputs_that_turn, pca_frames, weighted_frames
from geoeq.geometry.rotations import random_orthogonals, random_rotations, random_turns
from geoeq.symmetry import random_batch

GROUPS = get_args(FrameGroup)
NUMBERS = {"SO(3)": 4, "SE(3)": 4, "O(3)": 8, "E(3)": 8, "SE(2)": 2, "E(2)": 4}
KINDS = {"pca": pca_frames, "weighted": weighted_frames}
EYE = torch.eye(3, dtype=torch.float64)
HALF = 3**0.5 / 2


def cloud(n=7, seed=0):
    pos = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return pos - pos.mean(0)


def frames_of(pos, group="E(3)", kind="pca", axis=None):
    """Of one structure."""
    pos = torch.as_tensor(pos, dtype=torch.float64)
    graph, centroid = torch.zeros(len(pos), dtype=torch.int64), torch.zeros(1, 3, dtype=torch.float64)
    return KINDS[kind](pos, graph, centroid, group, axis)


def seen(pos, frames):
    """Weights and positions from every frame, in an order that does not depend on that of the frames."""
    rows = torch.cat([frames.weights[:, None], (torch.as_tensor(pos).double() @ frames.rotations).flatten(1)], dim=1)
    return torch.tensor(sorted(rows.round(decimals=9).add(0.0).tolist()), dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("group", GROUPS)
def test_frames_are_orthogonal_and_of_the_group(group, kind):
    batch = random_batch((5, 1, 9, 2))
    vectors, graph, centroids = inputs_that_turn(batch, group)
    frames = KINDS[kind](vectors, graph, centroids, group)
    torch.testing.assert_close(frames.rotations @ frames.rotations.mT, EYE.expand_as(frames.rotations))
    total = torch.zeros(4, dtype=torch.float64).index_add(0, frames.graph, frames.weights)
    torch.testing.assert_close(total, torch.ones(4, dtype=torch.float64))
    assert (frames.graph.diff() >= 0).all()
    proper = frames.rotations.det() > 0
    assert proper.all() == (group in ("SO(3)", "SE(3)", "SE(2)"))
    if group in ("O(3)", "E(3)", "E(2)"):
        assert proper.double().mean() == 0.5
    if kind == "pca":
        assert frames.graph.bincount().tolist() == [NUMBERS[group]] * 4
    if group in ("SE(2)", "E(2)"):
        torch.testing.assert_close(frames.rotations[:, :, 2], EYE[2].expand(len(frames.graph), 3))
        torch.testing.assert_close(frames.rotations[:, 2], EYE[2].expand(len(frames.graph), 3))
    moved = (frames.centroids != 0).any()
    assert bool(moved) == (group not in ("SO(3)", "O(3)"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("group", GROUPS)
def test_the_set_of_what_is_seen_is_invariant(group, kind):
    pos = cloud()
    if group in ("SE(2)", "E(2)"):
        turn = random_turns(1, [0, 0, 1], torch.Generator().manual_seed(5), torch.float64)[0]
        turn = turn @ torch.diag(torch.tensor([1.0, -1.0 if group == "E(2)" else 1.0, 1.0], dtype=torch.float64))
    else:
        turn = random_rotations(1, torch.Generator().manual_seed(5), torch.float64)[0]
        turn = -turn if group in ("O(3)", "E(3)") else turn
    turned = pos @ turn.T
    one, other = seen(pos, frames_of(pos, group, kind)), seen(turned, frames_of(turned, group, kind))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-8)
    mirror = seen(-pos, frames_of(-pos, group, kind))
    if group in ("SO(3)", "SE(3)"):
        assert mirror.shape != one.shape or (mirror - one).abs().max() > 1e-3


def test_axes_are_those_of_the_longest_spread_first():
    pos = cloud() * torch.tensor([1.0, 5.0, 2.0])
    seen_from = (pos @ frames_of(pos).rotations).square().mean(1)
    assert (seen_from[:, 0] > seen_from[:, 1]).all()
    assert (seen_from[:, 1] > seen_from[:, 2]).all()
    products = torch.einsum("fni,fnj->fij", pos @ frames_of(pos).rotations, pos @ frames_of(pos).rotations)
    off = products - torch.diag_embed(products.diagonal(dim1=1, dim2=2))
    assert off.abs().max() < 1e-12


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_frames_in_a_plane_keep_the_axis(axis):
    number, pos = "xyz".index(axis), cloud()
    for kind in KINDS:
        rotations = frames_of(pos, "E(2)", kind, axis).rotations
        assert (rotations[:, number, number] == 1).all()
        torch.testing.assert_close((pos @ rotations)[..., number], pos[:, number].expand(len(rotations), -1))


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_its_structures_and_empty_ones_have_frames_too(kind):
    clouds = [cloud(5, 1), cloud(9, 2)]
    vectors, graph = torch.cat(clouds), torch.tensor([0] * 5 + [2] * 9)
    frames = KINDS[kind](vectors, graph, torch.zeros(4, 3, dtype=torch.float64))
    for place, pos in zip((0, 2), clouds, strict=True):
        alone, mine = frames_of(pos, kind=kind), frames.graph == place
        torch.testing.assert_close(frames.rotations[mine], alone.rotations)
        torch.testing.assert_close(frames.weights[mine], alone.weights)
    for place in (1, 3):
        mine = frames.graph == place
        assert mine.any()
        assert not frames.on_axis[mine].any()
        assert float(frames.gap[place]) == 1
    nothing = KINDS[kind](torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 3))
    assert nothing.rotations.shape == (0, 3, 3)


@pytest.mark.parametrize(
    ("pos", "gap", "off_axis", "on_axis"),
    [
        ([[0, 0, 0]], 1, 0, 0),
        ([[0, 0.6, 0.8], [0, -0.6, -0.8]], 1, 0, 1),
        ([[1, 0, 0], [0.5, 0, 0], [-1.5, 0, 0]], 1, 0, 1),
        ([[2, 0, 0], [-2, 0, 0], [0, 1, 0], [0, -1, 0]], 0.25, 1, 1),
        ([[1, 0, 0], [-0.5, HALF, 0], [-0.5, -HALF, 0]], 0, 1, 1),
        ([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], 0, 1, 1),
    ],
    ids=["atom", "two atoms", "linear", "planar", "triangle", "octahedron"],
)
def test_what_is_not_unique_is_said(pos, gap, off_axis, on_axis):
    turn = random_orthogonals(1, torch.Generator().manual_seed(0), torch.float64)[0]
    pos = torch.tensor(pos, dtype=torch.float64)
    for turned in (pos, pos @ turn.T):
        frames = frames_of(turned)
        assert float(frames.gap) == pytest.approx(gap, abs=1e-12)
        assert set(frames.off_axis.tolist()) == {off_axis}
        assert set(frames.on_axis.tolist()) == {on_axis}
        weighted = frames_of(turned, kind="weighted")
        assert weighted.on_axis.tolist() == pytest.approx([on_axis] * len(weighted.graph))
        assert weighted.off_axis.tolist() == pytest.approx([off_axis] * len(weighted.graph), abs=1e-9)


def test_the_gap_is_a_part_of_the_largest_moment():
    values = torch.tensor([[4.0, 3.0, 1.0], [2.0, 2.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert frames_gap(values).tolist() == [0.25, 0, 1, 1]
    assert frames_gap(values[:, :2]).tolist() == [0.25, 0, 1, 1]


def test_weights_vanish_before_a_frame_would_jump():
    """Each pair's frame moves continuously or has no weight, along a path on which the farthest atom changes."""
    base = cloud(6)
    previous = None
    for step in torch.linspace(-0.3, 0.3, 601):
        pos = base.clone()
        pos[0] *= 1 + 3 * step
        frames = frames_of(pos - pos.mean(0), kind="weighted")
        # The mean of R ⊗ R is what an average of a quadratic function would be.
        moment = torch.einsum("m,mij,mkl->ijkl", frames.weights, frames.rotations, frames.rotations)
        if previous is not None:
            assert (moment - previous).abs().max() < 0.1
        previous = moment


def test_the_moments_of_weighted_frames_converge_and_those_of_pca_do_not():
    """By numbers: over a crossing of two moments, steps a hundred times smaller."""

    def path(step, kind):
        pos = cloud()
        values, vectors = torch.linalg.eigh(pos.T @ pos)
        pos = pos @ vectors @ torch.diag(values**-0.5) @ torch.diag(torch.tensor([1 + step, 1 - step, 0.6])).double()
        frames = frames_of(pos, kind=kind)
        return torch.einsum("m,mij,mkl->ijkl", frames.weights, frames.rotations, frames.rotations)

    for kind, limit in (("weighted", 1e-3), ("pca", None)):
        changes = [float((path(step, kind) - path(-step, kind)).abs().max()) for step in (1e-5, 1e-7)]
        if limit is None:
            assert min(changes) > 0.5
        else:
            assert changes[0] < limit
            assert changes[1] < 2e-2 * changes[0]


def test_a_few_frames_have_a_weight():
    """Those of the outermost atoms: few for a molecule, a part of all pairs for many atoms."""
    for n, most in ((5, 20), (10, 60), (20, 150), (40, 800)):
        counts = [len(frames_of(cloud(n, seed), "SE(3)", "weighted").graph) for seed in range(10)]
        assert max(counts) <= most
        assert max(counts) <= n * (n - 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("group", GROUPS)
def test_derivatives_of_frames(group, kind):
    pos = cloud(6).requires_grad_()

    def moments(pos):
        """Signs are arbitrary; squares are not."""
        frames = frames_of(pos, group, kind)
        return torch.einsum("m,mij,mik->ijk", frames.weights, frames.rotations.square(), frames.rotations.square())

    assert torch.autograd.gradcheck(moments, (pos,))
    assert torch.autograd.gradgradcheck(moments, (pos,))


@pytest.mark.parametrize("gap", [1e-1, 1e-3, 1e-5, 1e-8, 1e-15, 0.0])
def test_derivatives_of_eigenvectors_stay_finite(gap):
    turn = random_rotations(1, torch.Generator().manual_seed(0), torch.float64)[0]
    matrix = (turn @ torch.diag(torch.tensor([1 + gap, 1.0, 0.3], dtype=torch.float64)) @ turn.T).requires_grad_()
    values, vectors = eigenvectors(matrix)
    assert values.tolist() == pytest.approx([1 + gap, 1, 0.3])
    weight = torch.linspace(0, 1, 9, dtype=torch.float64).reshape(3, 3)
    projector = vectors[:, :1] @ vectors[:, :1].T
    (slope,) = torch.autograd.grad((projector * weight).sum() + values.square().sum(), matrix, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.square().sum(), matrix)
    assert slope.isfinite().all()
    assert curvature.isfinite().all()
    assert slope.abs().max() < 1e6
    torch.testing.assert_close(slope, slope.T)
    if gap >= 1e-3:
        value = matrix.detach().clone().requires_grad_()
        plain_values, plain = torch.linalg.eigh(value)
        loss = (plain[:, 2:] @ plain[:, 2:].T * weight).sum() + plain_values.square().sum()
        (expected,) = torch.autograd.grad(loss, value)
        symmetric = (expected + expected.T) / 2
        torch.testing.assert_close((slope + slope.T).detach() / 2, symmetric, rtol=1e-9, atol=1e-9)


def test_frames_are_drawn_by_their_weights():
    pos = cloud(5)
    vectors = torch.cat([pos, cloud(4, 3)])
    graph = torch.tensor([0] * 5 + [1] * 4)
    frames = weighted_frames(vectors, graph, torch.zeros(2, 3, dtype=torch.float64), "SE(3)")
    generator = torch.Generator().manual_seed(0)
    draws = [frames.draw(generator) for _ in range(2000)]
    assert all(drawn.graph.tolist() == [0, 1] for drawn in draws)
    assert all(drawn.weights.tolist() == [1, 1] for drawn in draws)
    for place, candidate in itertools.product(range(2), range(2)):
        mine = (frames.graph == place).nonzero().squeeze(-1)[candidate]
        share = sum(torch.equal(drawn.rotations[place], frames.rotations[mine]) for drawn in draws) / 2000
        assert share == pytest.approx(float(frames.weights[mine]), abs=0.05)


def test_unknown_groups_and_axes_are_refused():
    with pytest.raises(InputError, match=r"No group is called 'E3'. Did you mean 'E\(3\)'"):
        frames_of(cloud(), "E3")
    with pytest.raises(InputError, match="No group is called 'nothing'"):
        frames_of(cloud(), "nothing", "weighted")
    with pytest.raises(InputError, match=r"axis is 'x', but SO\(3\) has rotations about all axes"):
        frames_of(cloud(), "SO(3)", axis="x")


def test_what_is_long_is_not_taken_for_linear():
    """A tall cell, and a zigzag chain of forty atoms: all of an output counts."""
    slab = torch.cat([cloud(6), torch.diag(torch.tensor([3.0, 3.0, 100.0], dtype=torch.float64))])
    assert (frames_of(slab, "E(2)", "weighted").off_axis == 1).all()
    steps = torch.arange(40, dtype=torch.float64)
    chain = torch.stack([1.25 * steps, 0.45 * (-1) ** steps, 0 * steps], dim=-1)
    for kind in KINDS:
        assert (frames_of(chain - chain.mean(0), kind=kind).off_axis == 1).all()
