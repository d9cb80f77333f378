"""The two numbers of a last-layer uncertainty, found on a validation set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geoeq.errors import InputError
from geoeq.uncertainty.calibration import fit_factor, measure_calibration

__all__ = ["LastLayerFit", "fit_last_layer"]

#: Powers of ten of ς² that are tried, in units of the mean diagonal element of the covariance.
_POWERS = np.arange(-12.0, 1.01, 0.5)


@dataclass(frozen=True)
class LastLayerFit:
    """What was found.

    Attributes:
        regularizer: ς².
        scale: α.
        nll: mean negative log likelihood of the errors with them.
    """

    regularizer: float
    scale: float
    nll: float


def fit_last_layer(covariance: Tensor, features: Tensor, errors: NDArray[np.float64]) -> LastLayerFit:
    """The regularizer ς² and scale α with which a Gaussian likelihood of the errors is highest.

    Of the scale the best is known, ``α² = mean error² / (fᵀ (Fᵀ F + ς² I)⁻¹ f)``; ς² is the best of a grid of two
    values for each power of ten.

    Args:
        covariance: Fᵀ F of the training set.
        features: of the validation set, as rows.
        errors: of the validation set.

    Shapes:
        covariance: [W, W]. features: [K, W]. errors: [K].

    Raises:
        InputError: there are no errors, all are zero, or the features are.
    """
    values, vectors = torch.linalg.eigh(covariance.double())
    values = values.clamp(min=0)
    unit = float(values.mean())
    if not unit > 0:
        raise InputError("All features of the last layer are zero on the training set: the network has learnt nothing.")
    turned = (features.double() @ vectors).square()  # [K, W]
    found = []
    for power in _POWERS:
        regularizer = unit * 10.0**power
        deviations = (turned / (values + regularizer)).sum(1).sqrt().numpy()
        scale = fit_factor(errors, deviations)
        nll = measure_calibration(errors, scale * deviations).nll
        found.append(LastLayerFit(regularizer, scale, nll))
    return min(found, key=lambda fit: fit.nll)
