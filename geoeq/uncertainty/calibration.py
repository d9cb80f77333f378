"""How well estimated standard deviations tell the errors that were made."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from geoeq.errors import InputError

__all__ = ["Calibration", "fit_factor", "measure_calibration", "observed_fractions"]

Values = NDArray[np.float64]

#: Levels at which the expected and the observed fraction of errors are compared.
_LEVELS = 1000

#: The median of the absolute value of a Gaussian with a standard deviation of 1.
_MEDIAN = 0.6744897501960817

#: Groups of equal size, of similar estimates, for the ENCE, and how many errors one has at the least.
_GROUPS, _IN_GROUP = 10, 10

#: How much smaller the factor of the median is where tails are heavy, and how many errors are enough to tell.
_FAR, _ENOUGH = 1.5, 20


@dataclass(frozen=True)
class Calibration:
    """Numbers of errors against their estimates.

    Attributes:
        count: errors.
        rmse: their root mean square.
        deviation: root mean square of the estimates; equal to the error where these are right on average.
        nll: mean negative log likelihood of a Gaussian; lower is better, and it moves with the unit.
        miscalibration: area between the observed and the expected fraction of errors within a level, 0 to 0.5.
        within_1: fraction of errors within one estimate; 0.683 of a Gaussian.
        within_2: within two; 0.954.
        factor: the factor for the estimates with which the likelihood would be highest (``fit_factor``); 1 where they
            are right.
        ence: expected normalised calibration error: the mean, over ten groups of similar estimates, of how far the root
            mean squares of errors and estimates are apart, in parts of the latter; 0 where these are right.
        median_factor: the factor for the estimates with which half of the errors would be within 0.674 of them, as of a
            Gaussian; 1 where they are right. A few large errors, which a factor of the highest likelihood is made by,
            do not move it.
        spearman: correlation of the ranks of errors and estimates. It is below 1 even for perfect estimates, as an
            error is one draw; NaN where all estimates are the same.
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
        """Whether the median asks for a factor 1.5 times smaller than the likelihood does, of 20 errors or more."""
        return self.count >= _ENOUGH and self.median_factor * _FAR < self.factor

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it; None for what is not a number."""
        return {name: None if value != value else value for name, value in asdict(self).items()}


def measure_calibration(errors: Values, deviations: Values) -> Calibration:
    """Compare errors and their estimates.

    Shapes:
        errors, deviations: [K], in one unit.

    Raises:
        InputError: there are none, or an estimate is not positive and finite.
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
    """Levels p, and the fraction of errors that lie within the interval that should hold a part p of them.

    Shapes:
        errors, deviations: [K]. Returns two of [1000].
    """
    ratios = torch.from_numpy(np.abs(errors) / deviations)
    levels = np.sort(torch.erf(ratios / math.sqrt(2)).numpy())  # the smallest interval that holds each error
    expected = (np.arange(_LEVELS) + 0.5) / _LEVELS
    return expected, np.searchsorted(levels, expected, side="right") / len(levels)


def fit_factor(errors: Values, deviations: Values) -> float:
    """The factor for the estimates with which a Gaussian likelihood of the errors is highest.

    Shapes:
        errors, deviations: [K], in one unit.

    Raises:
        InputError: there are none, an estimate is not positive and finite, or all errors are zero.
    """
    errors, deviations = _checked(errors, deviations)
    factor = float(np.sqrt(np.mean((errors / deviations) ** 2)))
    if not factor > 0:
        raise InputError("All errors are zero: there is nothing to calibrate an uncertainty with.")
    return factor


def _ence(errors: Values, deviations: Values) -> float:
    groups = np.array_split(np.argsort(deviations, kind="stable"), max(1, min(_GROUPS, len(errors) // _IN_GROUP)))
    pairs = [[np.sqrt(np.mean(values[group] ** 2)) for values in (errors, deviations)] for group in groups]
    return float(np.mean([abs(made - expected) / expected for made, expected in pairs]))


def _checked(errors: Values, deviations: Values) -> tuple[Values, Values]:
    errors, deviations = (np.asarray(values, dtype=np.float64).reshape(-1) for values in (errors, deviations))
    if len(errors) == 0 or len(errors) != len(deviations):
        raise InputError(f"There are {len(errors)} errors and {len(deviations)} estimates: an estimate for each error.")
    wrong = np.flatnonzero(~(np.isfinite(errors) & np.isfinite(deviations) & (deviations > 0)))
    if len(wrong):
        place = int(wrong[0])
        raise InputError(
            f"Error {place} is {errors[place]:g}, and its estimate {deviations[place]:g}: errors must be finite, and "
            "estimates above 0, too. Are the members of the ensemble the same?"
        )
    return errors, deviations


def _rank_correlation(one: Values, two: Values) -> float:
    ranks = [_ranks(values) for values in (one, two)]
    centred = [values - values.mean() for values in ranks]
    norm = math.sqrt(float((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    return float((centred[0] * centred[1]).sum()) / norm if norm else math.nan


def _ranks(values: Values) -> Values:
    """Equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Values = (last - (counts - 1) / 2)[inverse]
    return ranks
