"""Points on the sphere: the quadrature is exact, the spiral is the published one."""

from __future__ import annotations

import pytest
import torch

from geoeq.errors import InputError
from geoeq.layers.sphere.sphere_points import fibonacci_points, point_harmonics, quadrature_points, spread_points


@pytest.mark.parametrize("degree", [0, 1, 2, 7, 12])
def test_quadrature_is_exact_up_to_its_degree_only(degree):
    points, weights = quadrature_points(degree)
    torch.testing.assert_close(points.norm(dim=-1), torch.ones(len(points), dtype=torch.float64))
    means = weights @ point_harmonics(points, min(degree, 8))
    expected = torch.zeros_like(means)
    expected[0] = 1
    torch.testing.assert_close(means, expected, rtol=0, atol=1e-13)
    if degree < 8:
        assert (weights @ point_harmonics(points, degree + 2))[1:].abs().max() > 1e-3


def test_quadrature_makes_harmonics_orthonormal():
    points, weights = quadrature_points(8)
    harmonics = point_harmonics(points, 4)
    torch.testing.assert_close(harmonics.T @ (weights[:, None] * harmonics), torch.eye(25, dtype=torch.float64))


def test_lengths_of_spiral_points_compensate_their_density():
    points = fibonacci_points(64)
    length = points.norm(dim=-1)
    torch.testing.assert_close(length.mean(), torch.ones((), dtype=torch.float64))
    golden = torch.atan2(points[1:3, 1], points[1:3, 0])
    turn = torch.tensor([2 * torch.pi / 1.618033988749895, 4 * torch.pi / 1.618033988749895], dtype=torch.float64)
    torch.testing.assert_close(golden.sin(), turn.sin())
    units = points / length[:, None]
    density = (-(units[:, None] - units).square().sum(-1) / 0.15).exp().sum(-1)
    torch.testing.assert_close(length * density, (length * density).mean().expand(64))
    assert density.max() < 1.1 * density.min()
    doubled = point_harmonics(2 * points, 2)
    torch.testing.assert_close(doubled[:, 4:], 4 * point_harmonics(points, 2)[:, 4:])


@pytest.mark.parametrize(("count", "cosine"), [(2, -1), (4, -1 / 3), (6, 0), (12, 5**-0.5)])
def test_few_spread_points_form_regular_solids(count, cosine):
    points = spread_points(count)
    products = (points @ points.T).fill_diagonal_(-1)
    torch.testing.assert_close(products.amax(1), torch.full((count,), float(cosine)).double(), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("count", "degree"), [(8, 1), (20, 3), (50, 5), (100, 9)])
def test_means_over_spread_points_approximate_those_over_the_sphere(count, degree):
    points = spread_points(count)
    spiral = torch.nn.functional.normalize(fibonacci_points(count), dim=-1)
    torch.testing.assert_close(points.norm(dim=-1), torch.ones(count, dtype=torch.float64))
    ours, others = (point_harmonics(p, degree).mean(0)[1:].abs().max() for p in (points, spiral))
    assert points.mean(0).norm() < 1e-12
    assert ours < 0.02
    assert ours < others / 5


def test_spread_points_are_normal_tensors_in_inference_mode():
    with torch.inference_mode():
        assert spread_points(9).shape == (9, 3)
    assert not spread_points(9).is_inference()


def test_invalid_counts_are_refused():
    with pytest.raises(InputError, match="at least one point on the sphere, not 0"):
        fibonacci_points(0)
    with pytest.raises(InputError, match="at least 0, not -1"):
        quadrature_points(-1)
