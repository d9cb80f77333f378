"""What is measured of a calibration, and what is fitted, on numbers whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm, spearmanr

from geoeq.errors import InputError
from geoeq.uncertainty import fit_factor, fit_last_layer, measure_calibration


def test_numbers_are_those_of_their_definitions():
    rng = np.random.default_rng(0)
    deviations = rng.uniform(0.5, 2.0, 300).round(2)  # with ties
    errors = 1.3 * deviations * rng.standard_normal(300)
    found = measure_calibration(errors, deviations)
    assert found.nll == pytest.approx(-norm.logpdf(errors, scale=deviations).mean())
    assert found.spearman == pytest.approx(spearmanr(abs(errors), deviations).statistic)
    assert found.within_1 == (abs(errors) <= deviations).mean()
    assert found.within_2 == (abs(errors) <= 2 * deviations).mean()
    assert (found.count, found.rmse) == (300, pytest.approx(np.sqrt((errors**2).mean())))


def test_the_area_is_zero_for_errors_as_expected_and_known_for_others():
    quantiles = norm.ppf((np.arange(2000) + 0.5) / 2000)
    assert measure_calibration(quantiles, np.ones(2000)).miscalibration < 1e-3
    twice = measure_calibration(2 * quantiles, np.ones(2000)).miscalibration
    levels = np.linspace(0, 1, 20001)
    wanted = abs(2 * norm.cdf(norm.ppf((1 + levels[:-1]) / 2) / 2) - 1 - levels[:-1]).mean()
    assert twice == pytest.approx(wanted, abs=2e-3)
    assert measure_calibration(np.zeros(10), np.ones(10)).miscalibration == pytest.approx(0.5, abs=1e-3)


def test_a_median_and_groups_tell_what_a_factor_does_not():
    quantiles = norm.ppf((np.arange(2000) + 0.5) / 2000)
    right = measure_calibration(3 * quantiles, np.full(2000, 3.0))
    assert right.median_factor == pytest.approx(1, abs=1e-3)
    assert right.factor == pytest.approx(1, abs=2e-3)
    assert not right.heavy_tails
    outlier = np.append(quantiles, 200.0)
    found = measure_calibration(outlier, np.full(2001, 1.0))
    assert found.factor == fit_factor(outlier, np.full(2001, 1.0)) > 4
    assert found.median_factor == pytest.approx(1, abs=3e-3)
    assert found.heavy_tails


def test_groups_of_estimates_that_are_wrong_in_opposite_ways():
    """The first half of the errors is twice its estimates, the second half of them: only the groups see it."""
    deviations = np.repeat([1.0, 10.0], 500)
    errors = np.repeat([2.0, 5.0], 500) * np.tile([1.0, -1.0], 500)
    found = measure_calibration(errors, deviations)
    assert found.ence == pytest.approx((1.0 + 0.5) / 2)
    assert measure_calibration(deviations, deviations).ence == 0
    assert measure_calibration(np.array([3.0]), np.array([2.0])).ence == pytest.approx(0.5)


def test_the_factor_has_the_highest_likelihood():
    rng = np.random.default_rng(1)
    deviations = rng.uniform(0.1, 3.0, 400)
    errors = 2.5 * deviations * rng.standard_normal(400)
    factor = fit_factor(errors, deviations)
    assert factor == pytest.approx(2.5, rel=0.1)
    best = measure_calibration(errors, factor * deviations).nll
    assert all(measure_calibration(errors, other * factor * deviations).nll > best for other in (0.99, 1.01))


def test_a_bayesian_regression_is_recovered():
    """Weights from the prior and noise of their posterior: the scale is that of the noise."""
    torch.manual_seed(0)
    train = torch.randn(60, 5, dtype=torch.float64) * torch.tensor([3.0, 1.0, 0.3, 0.1, 1.0])
    valid = torch.randn(3000, 5, dtype=torch.float64) * torch.tensor([3.0, 1.0, 0.3, 0.5, 1.0])
    noise = 0.2
    covariance = train.mT @ train
    posterior = torch.linalg.cholesky(noise**2 * torch.linalg.inv(covariance))
    errors = (valid * (torch.randn(3000, 5, dtype=torch.float64) @ posterior.mT)).sum(1).numpy()
    fit = fit_last_layer(covariance, valid, errors)
    assert fit.scale == pytest.approx(noise, rel=0.05)
    assert fit.regularizer < 0.1 * float(torch.linalg.eigvalsh(covariance)[0])
    deviations = fit.scale * torch.einsum("kw,wv,kv->k", valid, torch.linalg.inv(covariance), valid).sqrt().numpy()
    assert measure_calibration(errors, deviations).miscalibration < 0.02


def test_what_cannot_be_calibrated():
    with pytest.raises(InputError, match="0 errors and 0 estimates"):
        measure_calibration(np.zeros(0), np.zeros(0))
    with pytest.raises(
        InputError, match=r"Error 1 is 1 and its estimate 0: .* Are the members of the ensemble identical"
    ):
        measure_calibration(np.ones(2), np.array([1.0, 0.0]))
    with pytest.raises(InputError, match="All errors are zero"):
        fit_factor(np.zeros(2), np.ones(2))
    with pytest.raises(InputError, match="All features of the last layer are zero"):
        fit_last_layer(torch.zeros(3, 3), torch.ones(2, 3), np.ones(2))
    assert math.isnan(measure_calibration(np.array([1.0, 2.0]), np.ones(2)).spearman)
    assert measure_calibration(np.array([1.0, 2.0]), np.ones(2)).to_dict()["spearman"] is None
