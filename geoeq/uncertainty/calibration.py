"""Compare estimated standard deviations with actual errors, and fit the scale of the estimates."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geoeq.errors import InputError

__all__ = [
    "Calibration",
    "LastLayerFit",
    "fit_factor",
    "fit_last_layer",
    "measure_calibration",
    "observed_fractions",
]

Values = NDArray[np.float64]

#: Number of levels at which the expected and the observed fraction of errors are compared.
_LEVELS = 1000

#: Median of the absolute value of a standard Gaussian.
_MEDIAN = 0.6744897501960817

#: ENCE: number of equally large groups of similar estimates, and smallest number of errors per group.
_GROUPS, _IN_GROUP = 10, 10

#: Heavy tails: ratio of the likelihood's factor to that of the median, and smallest number of errors to decide.
_FAR, _ENOUGH = 1.5, 20

#: Powers of ten of ς² that are tested, in units of the mean diagonal element of the covariance.
_POWERS = np.arange(-12.0, 1.01, 0.5)


@dataclass(frozen=True)
class Calibration:
    """Quality of estimated standard deviations.

    Attributes:
        count: number of errors.
        rmse: root mean square of the errors.
        deviation: root mean square of the estimates; equal to the RMSE if they are right on average.
        nll: mean negative log likelihood of a Gaussian; lower is better, and it depends on the unit.
        miscalibration: area between the observed and the expected fraction of errors within a level, 0 to 0.5.
        within_1: fraction of errors within one estimate; 0.683 for a Gaussian.
        within_2: fraction of errors within two estimates; 0.954 for a Gaussian.
        factor: factor for the estimates that maximizes the likelihood (``fit_factor``); 1 if they are right.
        ence: expected normalised calibration error: mean over ten groups of similar estimates of the relative
            difference between the root mean squares of errors and estimates; 0 if they are right.
        median_factor: factor for the estimates that puts half of the errors within 0.674 of them, as for a Gaussian; 1
            if they are right. Unlike the factor of the likelihood, it is insensitive to a few large errors.
        spearman: rank correlation of absolute errors and estimates. It is below 1 even for perfect estimates, because
            each error is a single draw; NaN if all estimates are equal.
    """

    count: int
    rmse: float
    deviation: float
    nll: float
    miscalibration: float
    within_1: float
    within_2: float
    factor: float
    ence: float
    median_factor: float
    spearman: float

    @property
    def heavy_tails(self) -> bool:
        """Whether the factor of the median is 1.5 times smaller than that of the likelihood, for at least 20 errors."""
        return self.count >= _ENOUGH and self.median_factor * _FAR < self.factor

    def to_dict(self) -> dict[str, Any]:
        """Return the values for JSON; NaN becomes None."""
        return {name: None if value != value else value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class LastLayerFit:
    """Fitted parameters of a last-layer uncertainty.

    Attributes:
        regularizer: ς².
        scale: α.
        nll: mean negative log likelihood of the errors with these parameters.
    """

    regularizer: float
    scale: float
    nll: float


def measure_calibration(errors: Values, deviations: Values) -> Calibration:
    """Measure how well estimates describe errors.

    Shapes:
        errors, deviations: [K], in the same unit.

    Raises:
        InputError: there are no errors, or an estimate is not positive and finite.
    """
    errors, deviations = _checked(errors, deviations)
    ratios = np.abs(errors) / deviations
    nll = 0.5 * np.log(2 * math.pi * deviations**2) + 0.5 * ratios**2
    expected, observed = observed_fractions(errors, deviations)
    return Calibration(
        count=len(errors),
        rmse=float(np.sqrt(np.mean(errors**2))),
        deviation=float(np.sqrt(np.mean(deviations**2))),
        nll=float(nll.mean()),
        miscalibration=float(np.abs(observed - expected).mean()),
        within_1=float((ratios <= 1).mean()),
        within_2=float((ratios <= 2).mean()),
        factor=float(np.sqrt(np.mean(ratios**2))),
        ence=_ence(errors, deviations),
        median_factor=float(np.median(ratios)) / _MEDIAN,
        spearman=_rank_correlation(np.abs(errors), deviations),
    )


def observed_fractions(errors: Values, deviations: Values) -> tuple[Values, Values]:
    """Return levels p, and the fraction of errors within the interval that should contain a fraction p.

    Shapes:
        errors, deviations: [K]. Returns two arrays of [1000].
    """
    ratios = torch.from_numpy(np.abs(errors) / deviations)
    levels = np.sort(torch.erf(ratios / math.sqrt(2)).numpy())  # the smallest interval that contains each error
    expected = (np.arange(_LEVELS) + 0.5) / _LEVELS
    return expected, np.searchsorted(levels, expected, side="right") / len(levels)


def fit_factor(errors: Values, deviations: Values) -> float:
    """Return the factor for the estimates that maximizes the Gaussian likelihood of the errors.

    Shapes:
        errors, deviations: [K], in the same unit.

    Raises:
        InputError: there are no errors, an estimate is not positive and finite, or all errors are zero.
    """
    errors, deviations = _checked(errors, deviations)
    factor = float(np.sqrt(np.mean((errors / deviations) ** 2)))
    if not factor > 0:
        raise InputError("All errors are zero: they cannot calibrate an uncertainty.")
    return factor


def fit_last_layer(covariance: Tensor, features: Tensor, errors: Values) -> LastLayerFit:
    """Fit the regularizer ς² and scale α that maximize the Gaussian likelihood of the errors.

    The best scale is ``α² = mean error² / (fᵀ (Fᵀ F + ς² I)⁻¹ f)``; ς² is the best value of a grid with two values per
    power of ten.

    Args:
        covariance: Fᵀ F of the training set.
        features: features of the validation set, as rows.
        errors: errors on the validation set.

    Shapes:
        covariance: [W, W]. features: [K, W]. errors: [K].

    Raises:
        InputError: there are no errors, all errors are zero, or all features are zero.
    """
    values, vectors = torch.linalg.eigh(covariance.double())
    values = values.clamp(min=0)
    unit = float(values.mean())
    if not unit > 0:
        raise InputError("All features of the last layer are zero on the training set: the network has learnt nothing.")
    projected = (features.double() @ vectors).square()  # [K, W]
    fits = []
    for power in _POWERS:
        regularizer = unit * 10.0**power
        deviations = (projected / (values + regularizer)).sum(1).sqrt().numpy()
        scale = fit_factor(errors, deviations)
        nll = measure_calibration(errors, scale * deviations).nll
        fits.append(LastLayerFit(regularizer, scale, nll))
    return min(fits, key=lambda fit: fit.nll)


def _ence(errors: Values, deviations: Values) -> float:
    groups = np.array_split(np.argsort(deviations, kind="stable"), max(1, min(_GROUPS, len(errors) // _IN_GROUP)))
    pairs = [[np.sqrt(np.mean(values[group] ** 2)) for values in (errors, deviations)] for group in groups]
    return float(np.mean([abs(actual - estimated) / estimated for actual, estimated in pairs]))


def _checked(errors: Values, deviations: Values) -> tuple[Values, Values]:
    errors, deviations = (np.asarray(values, dtype=np.float64).reshape(-1) for values in (errors, deviations))
    if len(errors) == 0 or len(errors) != len(deviations):
        raise InputError(f"There are {len(errors)} errors and {len(deviations)} estimates; each error needs one.")
    invalid = np.flatnonzero(~(np.isfinite(errors) & np.isfinite(deviations) & (deviations > 0)))
    if len(invalid):
        index = int(invalid[0])
        raise InputError(
            f"Error {index} is {errors[index]:g} and its estimate {deviations[index]:g}: errors must be finite, and "
            "estimates positive and finite. Are the members of the ensemble identical?"
        )
    return errors, deviations


def _rank_correlation(one: Values, two: Values) -> float:
    ranks = [_ranks(values) for values in (one, two)]
    centred = [values - values.mean() for values in ranks]
    norm = math.sqrt(float((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    return float((centred[0] * centred[1]).sum()) / norm if norm else math.nan


def _ranks(values: Values) -> Values:
    """Return ranks; equal values share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Values = (last - (counts - 1) / 2)[inverse]
    return ranks
