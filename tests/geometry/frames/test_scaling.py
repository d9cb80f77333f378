"""Coordinates from distances: those of principal axes where there are points in space, and what there is elsewhere."""

from __future__ import annotations

import pytest
import torch

from geoeq.geometry.frames import multidimensional_scaling, pca_frames, spread_landmarks
from geoeq.geometry.random_structures import random_batch
from geoeq.geometry.rotations import random_orthogonals
from geoeq.pointers import batch_from_ptr

SIZES = (5, 1, 9, 2, 30, 3, 4)
NUMBERS = (None, 4, 6, 16)
EYE = torch.eye(3, dtype=torch.float64)


def squares(pos, landmarks, ptr):
    batch = batch_from_ptr(ptr, len(pos))
    return (pos[:, None] - pos[landmarks.clamp(min=0)][batch]).square().sum(-1)


def scaled(pos, ptr, count=None, dimensions=3):
    landmarks = spread_landmarks(pos, ptr, count)
    return multidimensional_scaling(squares(pos, landmarks, ptr), landmarks, ptr, dimensions)


def principal(pos, ptr):
    """The coordinates in the frame of the principal axes, with any signs."""
    batch, num_graphs = batch_from_ptr(ptr, len(pos)), len(ptr) - 1
    centroids = pos.new_zeros(num_graphs, 3).index_add(0, batch, pos) / ptr.diff().clamp(min=1)[:, None]
    frames = pca_frames(pos - centroids[batch], batch, centroids)
    rotations = frames.rotations.reshape(num_graphs, 8, 3, 3)[:, 0]
    return ((pos - centroids[batch])[:, None] @ rotations[batch]).squeeze(1)


def single(pos):
    return torch.as_tensor(pos, dtype=torch.float64), torch.tensor([0, len(pos)])


@pytest.mark.parametrize("count", NUMBERS)
def test_distances_of_points_give_their_principal_axes(count):
    """For all landmarks or few, with the same landmarks' choice or not: the sign of an axis is all that is open."""
    batch = random_batch(SIZES)
    found, expected = scaled(batch.pos, batch.ptr, count).coordinates, principal(batch.pos, batch.ptr)
    for graph in range(len(SIZES)):
        rows = batch.batch == graph
        signs = (found[rows] * expected[rows]).sum(0).sign()
        torch.testing.assert_close(found[rows] * signs, expected[rows], rtol=0, atol=1e-12)


@pytest.mark.parametrize("count", NUMBERS)
def test_distances_are_kept_and_turns_are_not_seen(count):
    batch = random_batch(SIZES)
    ptr, found = batch.ptr, scaled(batch.pos, batch.ptr, count)
    everyone = spread_landmarks(batch.pos, ptr)
    real = (everyone >= 0)[batch.batch]
    before, after = squares(batch.pos, everyone, ptr)[real], squares(found.coordinates, everyone, ptr)[real]
    torch.testing.assert_close(after, before, rtol=0, atol=1e-10)
    assert found.lost.max() < 1e-12
    turn = random_orthogonals(1, torch.Generator().manual_seed(1), torch.float64)[0]
    again = scaled(batch.pos @ turn.T + 3.0, ptr, count)
    torch.testing.assert_close(again.coordinates.abs(), found.coordinates.abs(), rtol=0, atol=1e-10)
    torch.testing.assert_close(again.spread, found.spread)
    torch.testing.assert_close(again.gap, found.gap)


def test_another_order_of_points_is_another_order_of_coordinates():
    batch = random_batch((30,))
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    for count in NUMBERS:
        found, moved = (scaled(pos, batch.ptr, count).coordinates for pos in (batch.pos, batch.pos[order]))
        torch.testing.assert_close(moved.abs(), found[order].abs(), rtol=0, atol=1e-12)


def probe(coordinates):
    """Something of the coordinates that no sign changes."""
    weights = torch.linspace(0.3, 1, coordinates.numel(), dtype=torch.float64).reshape(coordinates.shape)
    even = coordinates.square()
    return (even * weights).sum() + (even * weights.flip(0)).square().sum()


@pytest.mark.parametrize("count", [None, 4, 6])
def test_derivatives_are_those_of_principal_axes(count):
    batch = random_batch((5, 9, 4))
    pos = batch.pos.clone().requires_grad_()
    derivatives = []
    for coordinates in (scaled(pos, batch.ptr, count).coordinates, principal(pos, batch.ptr)):
        (slope,) = torch.autograd.grad(probe(coordinates), pos, create_graph=True)
        (curvature,) = torch.autograd.grad(slope.square().sum(), pos)
        derivatives.append((slope.detach(), curvature))
    for found, expected in zip(*derivatives):
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8 * float(expected.abs().max()))
    assert torch.autograd.gradcheck(lambda pos: probe(scaled(pos, batch.ptr, count).coordinates), (pos,))


@pytest.mark.parametrize("thickness", [1e-2, 1e-4, 1e-6, 0.0])
def test_derivatives_stay_right_where_structures_become_flat(thickness):
    pos, ptr = random_batch((9,)).pos, torch.tensor([0, 9])
    pos = (pos * torch.tensor([1.0, 1.0, thickness])).requires_grad_()
    found, expected = (
        torch.autograd.grad(probe(coordinates), pos)[0]
        for coordinates in (scaled(pos, ptr, 6).coordinates, principal(pos, ptr))
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7 * float(expected.abs().max()))


@pytest.mark.parametrize("count", [None, 4])
@pytest.mark.parametrize(
    "pos",
    [
        [[0.3, 0.2, 0.1]],
        [[0, 0, 0], [0.3, 1.2, -0.4]],
        [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]],
        [[0, 0, -1.1], [0, 0, 0], [0, 0, 1.3], [0, 0, 2], [0, 0, 5]],
        [[0, 0, 0], [1, 0, 0], [0, 1.5, 0], [1, 1, 0], [3, 1, 0]],
        [[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]],
    ],
    ids=["one", "two", "two in one place", "line", "plane", "tetrahedron"],
)
def test_everything_is_finite_where_axes_are_open(pos, count):
    pos, ptr = single(pos)
    pos.requires_grad_()
    found = scaled(pos, ptr, count)
    (slope,) = torch.autograd.grad(probe(found.coordinates), pos, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.square().sum(), pos)
    for value in (*found, slope, curvature):
        assert value.isfinite().all()
    everyone = spread_landmarks(pos, ptr)
    torch.testing.assert_close(squares(found.coordinates, everyone, ptr), squares(pos, everyone, ptr))


def test_gap_says_where_axes_are_chance():
    tetrahedron, ptr = single([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    assert scaled(tetrahedron, ptr).gap < 1e-12
    assert scaled(tetrahedron * torch.tensor([3.0, 2.0, 1.0]), ptr).gap > 0.3


def test_graphs_without_points_and_no_graphs_at_all():
    pos = random_batch((4,)).pos
    found = scaled(pos, torch.tensor([0, 0, 4, 4]), 4)
    torch.testing.assert_close(found.coordinates, scaled(pos, torch.tensor([0, 4])).coordinates)
    assert found.spread[0].tolist() == [0.0, 0.0, 0.0]
    for ptr in ([0], [0, 0]):
        landmarks = spread_landmarks(pos[:0], torch.tensor(ptr), 4)
        empty = multidimensional_scaling(pos.new_zeros(0, landmarks.shape[1]), landmarks, torch.tensor(ptr))
        assert empty.coordinates.shape == (0, 3)
        assert len(empty.gap) == len(ptr) - 1


def test_four_landmarks_span_the_structure():
    """One atom above a wide plate is among them, though many are farther from each other."""
    x, y = torch.meshgrid(torch.arange(7.0), torch.arange(7.0), indexing="ij")
    plate = torch.stack([x.flatten(), y.flatten(), torch.zeros(49)], dim=1).double()
    pos = torch.cat([plate, torch.tensor([[3.2, 3.1, 1.0]], dtype=torch.float64)])
    ptr = torch.tensor([0, 50])
    assert 49 in spread_landmarks(pos, ptr, 4)[0].tolist()
    assert 49 not in spread_landmarks(plate, torch.tensor([0, 49]), 4)
    assert scaled(pos, ptr, 4).lost < 1e-12
    everyone = spread_landmarks(pos, ptr)
    torch.testing.assert_close(squares(scaled(pos, ptr, 4).coordinates, everyone, ptr), squares(pos, everyone, ptr))


def test_landmarks_of_small_graphs_are_all_their_points():
    batch = random_batch((2, 9, 5))
    chosen = spread_landmarks(batch.pos, batch.ptr, 5)
    assert chosen[0].tolist() == [0, 1, -1, -1, -1]
    assert chosen[2].tolist() == [11, 12, 13, 14, 15]
    assert len(set(chosen[1].tolist())) == 5
    assert spread_landmarks(batch.pos, batch.ptr, 4)[1].tolist() == chosen[1, :4].tolist()


def test_classical_scaling_is_the_best_that_so_many_coordinates_can_do():
    """Of points in five dimensions: the coordinates along the longest axes, and what is lost is the rest."""
    points = torch.randn(12, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * torch.arange(
        5, 0, -1
    )
    points = points - points.mean(0)
    distances = torch.cdist(points, points).square().requires_grad_()
    landmarks, ptr = torch.arange(12)[None], torch.tensor([0, 12])
    found = multidimensional_scaling(distances, landmarks, ptr)
    u, s, _ = torch.linalg.svd(points, full_matrices=False)
    torch.testing.assert_close(found.coordinates.abs(), (u * s)[:, :3].abs())
    torch.testing.assert_close(found.lost[0], s[3:].square().sum() / s.square().sum())
    exact = multidimensional_scaling(distances, landmarks, ptr, 5)
    torch.testing.assert_close(torch.cdist(exact.coordinates, exact.coordinates).square(), distances)
    assert exact.lost < 1e-12

    def even(distances):
        symmetric = (distances + distances.T) / 2
        return multidimensional_scaling(symmetric, landmarks, ptr).coordinates.square()

    assert torch.autograd.gradcheck(even, (distances,))


def test_distances_of_no_points_lose_what_is_negative():
    """A star: three ends at distance 2 of each other's and 1 of the middle would need a space of negative squares."""
    steps = torch.tensor([[0, 1, 1, 1], [1, 0, 2, 2], [1, 2, 0, 2], [1, 2, 2, 0.0]], dtype=torch.float64)
    found = multidimensional_scaling(steps.square(), torch.arange(4)[None], torch.tensor([0, 4]))
    assert found.coordinates.isfinite().all()
    assert found.lost > 0.01
    assert found.spread[0, 2] < 1e-12 * found.spread[0, 0]
    ends = found.coordinates[1:]
    torch.testing.assert_close(torch.cdist(ends, ends), 2 * (1 - EYE), rtol=0, atol=1e-6)
