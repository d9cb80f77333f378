"""Grids on the sphere and the nonlinearities on them."""

from __future__ import annotations

import itertools

import pytest
import torch
from e3nn import o3

from geoeq.errors import InputError
from geoeq.geometry.harmonics import harmonics
from geoeq.layers import S2Activation, SeparableS2Activation
from geoeq.layers.irreps.layout import from_coefficients, sphere_irreps, to_coefficients
from geoeq.layers.sphere.s2_grid import S2Grid, degree_order, order_degree
from geoeq.layers.sphere.sphere_activation import SphereGate, grid_silu, sphere_activation
from geoeq.symmetry import equivariance_errors


@pytest.mark.parametrize("by_order", [False, True])
@pytest.mark.parametrize("normalization", ["component", "norm", "integral"])
@pytest.mark.parametrize(("lmax", "mmax", "resolution"), [(0, 0, None), (2, 2, None), (4, 2, None), (3, 1, 14)])
def test_project_is_the_inverse_of_sample(lmax, mmax, resolution, normalization, by_order):
    grid = S2Grid(lmax, mmax, resolution, normalization, rescale=False, by_order=by_order)
    x = torch.randn(3, len(degree_order(lmax, mmax)), 2, dtype=torch.float64)
    torch.testing.assert_close(grid.project(grid.sample(x)), x)


def test_values_are_those_of_the_harmonics():
    lmax, (latitudes, longitudes) = 3, (10, 12)
    grid = S2Grid(lmax, resolution=(latitudes, longitudes), normalization="integral")
    beta = (torch.arange(latitudes, dtype=torch.float64) + 0.5) / latitudes * torch.pi
    alpha = torch.arange(longitudes, dtype=torch.float64) / longitudes * 2 * torch.pi
    points = o3.angles_to_xyz(alpha.repeat(latitudes), beta.repeat_interleave(longitudes))  # [P, 3]
    expected = harmonics(points, torch.ones(len(points), dtype=torch.float64), lmax) / (4 * torch.pi) ** 0.5
    torch.testing.assert_close(grid.to_grid, expected)


def test_both_orders_have_the_same_coefficients():
    by_degree, by_order = S2Grid(4, 2, 18), S2Grid(4, 2, 18, by_order=True)
    index = [degree_order(4, 2).index(component) for component in order_degree(4, 2)]
    assert len(index) == 19
    assert torch.equal(by_order.to_grid, by_degree.to_grid[:, index])
    assert torch.equal(by_order.from_grid, by_degree.from_grid[index])
    assert order_degree(2, 1) == [(0, 0), (1, 0), (2, 0), (1, 1), (2, 1), (1, -1), (2, -1)]


def test_degrees_without_all_orders_are_rescaled():
    plain, rescaled = S2Grid(3, 1, 14, rescale=False), S2Grid(3, 1, 14)
    ratio = (rescaled.to_grid[3] / plain.to_grid[3]).square()
    degrees = torch.tensor([(2 * degree + 1) / (2 * min(degree, 1) + 1) for degree, _ in degree_order(3, 1)])
    torch.testing.assert_close(ratio, degrees.double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_matrices_are_exact_whatever_the_default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        grid = S2Grid(5, 3, 2 * (6 + int(dtype == torch.float32)), rescale=False)
    finally:
        torch.set_default_dtype(before)
    identity = torch.eye(grid.to_grid.shape[1], dtype=torch.float64)
    torch.testing.assert_close(grid.from_grid @ grid.to_grid, identity, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((2, 3), "mmax must lie between 0 and lmax = 2, not 3"),
        ((2, 2, 4), "4 x 4 cannot hold lmax = 2"),
        ((2, 2, 7), "even number of latitudes"),
        ((2, 2, None, "integrall"), "Did you mean 'integral'"),
    ],
)
def test_impossible_grids_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        S2Grid(*arguments)


@pytest.mark.parametrize("kind", [S2Activation, SeparableS2Activation])
def test_the_error_falls_with_the_resolution(kind):
    errors = []
    for resolution in (8, 14, 20, 30):
        error = equivariance_errors(kind(2, 4, resolution).double())
        errors.append(max(error["rotation", "features"], error["reflection", "features"]))
    assert errors[0] < 0.1
    assert all(later < earlier / 3**2 for earlier, later in itertools.pairwise(errors))
    assert errors[-1] < 1e-7


def test_the_default_grid_is_the_smallest():
    assert S2Activation(3, 4).activation.grid.resolution == (8, 8)
    assert S2Grid(3, 1).resolution == (8, 3)
    assert S2Grid(3).resolution == (8, 9)


def test_grid_silu_is_its_formula_with_derivatives_of_any_order():
    grid = S2Grid(2, 1, 8)
    x = torch.randn(150, 7, 3, dtype=torch.float64, requires_grad=True)  # more than one chunk

    def plain(x):
        return grid.project(torch.nn.functional.silu(grid.sample(x)))

    value = grid_silu(x, grid.to_grid, grid.from_grid)
    torch.testing.assert_close(value, plain(x))
    weight = torch.randn_like(value)
    (slope,) = torch.autograd.grad((value * weight).sum(), x, create_graph=True)
    (fused,) = torch.autograd.grad((grid_silu(x, grid.to_grid, grid.from_grid) * weight).sum(), x)
    (expected,) = torch.autograd.grad((plain(x) * weight).sum(), x, create_graph=True)
    torch.testing.assert_close(slope, expected)
    torch.testing.assert_close(fused, expected)
    torch.testing.assert_close(
        torch.autograd.grad(slope.square().sum(), x), torch.autograd.grad(expected.square().sum(), x)
    )
    small = x[:2].detach().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: grid_silu(x, grid.to_grid, grid.from_grid), (small,))


def test_grid_silu_of_no_rows():
    grid = S2Grid(1)
    assert grid_silu(torch.zeros(0, 4, 3, dtype=torch.float64), grid.to_grid, grid.from_grid).shape == (0, 4, 3)


def test_the_separable_form_has_separate_scalars():
    activation = sphere_activation("separable_s2", 2, 1, 14)
    x, scalars = torch.randn(4, 7, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    out = activation(x, scalars)
    torch.testing.assert_close(out[:, 0], torch.nn.functional.silu(scalars))
    torch.testing.assert_close(out[:, 1:], sphere_activation("s2", 2, 1, 14)(x, scalars[:, :0])[:, 1:])


@pytest.mark.parametrize("by_order", [False, True])
def test_there_is_one_gate_per_degree_and_channel(by_order):
    gate = SphereGate(3, 1, by_order)
    order = (order_degree if by_order else degree_order)(3, 1)
    x, scalars = torch.randn(2, len(order), 5), torch.randn(2, 3 * 5)
    out = gate(x, scalars)
    for row, (degree, _) in enumerate(order):
        factor = x[:, 0].sigmoid() if degree == 0 else scalars[:, 5 * (degree - 1) : 5 * degree].sigmoid()
        torch.testing.assert_close(out[:, row], x[:, row] * factor)


def test_an_unknown_nonlinearity_is_refused():
    with pytest.raises(InputError, match="Did you mean 'gate'"):
        sphere_activation("gates", 2)


def test_layouts_are_inverse():
    x = torch.randn(3, 4 * 9)
    coefficients = to_coefficients(x, 2, 4)
    assert torch.equal(from_coefficients(coefficients, 2), x)
    assert torch.equal(coefficients[:, 1:4, 0], x[:, 4:7])  # the three components of the first vector
    with pytest.raises(InputError, match="lmax >= 0 and channels >= 1"):
        sphere_irreps(2, 0)
