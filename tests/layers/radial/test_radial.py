"""Radial functions are the formulas of their papers, and as smooth as documented."""

from __future__ import annotations

import math

import pytest
import torch

from geoeq.errors import InputError
from geoeq.layers import BesselBasis, CosineEnvelope, ExpNormalBasis, GaussianBasis, PolynomialEnvelope

CUTOFF = 4.0


def derivatives(function, at):
    """Return value, slope and curvature of the sum of the functions."""
    r = torch.tensor([at], dtype=torch.float64, requires_grad=True)
    value = function(r).sum()
    (slope,) = torch.autograd.grad(value, r, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), r)
    return value.item(), slope.item(), curvature.item()


@pytest.mark.parametrize(
    "function", [PolynomialEnvelope(CUTOFF), PolynomialEnvelope(CUTOFF, 3), BesselBasis(5, CUTOFF)]
)
def test_value_slope_and_curvature_vanish_at_the_cutoff(function):
    for number in derivatives(function.double(), CUTOFF - 1e-7):
        assert abs(number) < 1e-4
    assert derivatives(function, CUTOFF + 0.1) == (0, 0, 0)


@pytest.mark.parametrize("function", [CosineEnvelope(CUTOFF), ExpNormalBasis(5, CUTOFF)])
def test_value_and_slope_vanish_at_the_cutoff(function):
    value, slope, _ = derivatives(function.double(), CUTOFF - 1e-7)
    assert abs(value) < 1e-6
    assert abs(slope) < 1e-6
    assert derivatives(function, CUTOFF + 0.1)[0] == pytest.approx(0, abs=1e-14)


def test_envelopes_start_at_one_and_halve_in_the_middle():
    zero = torch.zeros(1, dtype=torch.float64)
    assert float(PolynomialEnvelope(CUTOFF)(zero)) == 1
    assert float(CosineEnvelope(CUTOFF)(zero)) == 1
    assert float(CosineEnvelope(CUTOFF)(zero + CUTOFF / 2)) == pytest.approx(0.5)
    d, p = 0.3, 6
    formula = 1 - (p + 1) * (p + 2) / 2 * d**p + p * (p + 2) * d ** (p + 1) - p * (p + 1) / 2 * d ** (p + 2)
    assert float(PolynomialEnvelope(CUTOFF)(zero + d * CUTOFF)) == pytest.approx(formula, rel=1e-14)


def test_bessel_is_the_formula_and_its_limit_at_zero():
    basis = BesselBasis(3, CUTOFF).double()
    r = 1.7
    envelope = float(PolynomialEnvelope(CUTOFF)(torch.tensor([r], dtype=torch.float64)))
    expected = [math.sqrt(2 / CUTOFF) * math.sin(k * math.pi * r / CUTOFF) / r * envelope for k in (1, 2, 3)]
    assert basis(torch.tensor([r], dtype=torch.float64))[0].tolist() == pytest.approx(expected, rel=1e-13)
    limit = [math.sqrt(2 / CUTOFF) * k * math.pi / CUTOFF for k in (1, 2, 3)]
    assert basis(torch.zeros(1, dtype=torch.float64))[0].tolist() == pytest.approx(limit, rel=1e-13)


def test_gaussians_peak_at_their_centres():
    basis = GaussianBasis(5, CUTOFF)
    assert torch.allclose(basis(torch.linspace(0, CUTOFF, 5)).diagonal(), torch.ones(5))
    assert float(basis(torch.tensor([1.0]))[0, 0]) == pytest.approx(math.exp(-0.5), rel=1e-6)


def test_exponential_normal_is_the_formula():
    basis, r = ExpNormalBasis(4, CUTOFF).double(), 1.3
    start = math.exp(-5)
    centers = [start + k * (1 - start) / 3 for k in range(4)]
    beta = (2 / 4 * (1 - start)) ** -2
    envelope = (math.cos(math.pi * r / CUTOFF) + 1) / 2
    expected = [math.exp(-beta * (math.exp(-5 * r / CUTOFF) - c) ** 2) * envelope for c in centers]
    assert basis(torch.tensor([r], dtype=torch.float64))[0].tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", [GaussianBasis, BesselBasis, ExpNormalBasis])
def test_bad_arguments(kind):
    with pytest.raises(InputError, match=r"cutoff is .*; it must be a positive, finite number"):
        kind(4, -1.0)
    with pytest.raises(InputError, match=r"cutoff is .*; it must be a positive, finite number"):
        kind(4, math.inf)
    with pytest.raises(InputError, match="width is 0; it must be 1 or more"):
        kind(0, 4.0)
