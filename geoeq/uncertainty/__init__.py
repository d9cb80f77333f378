"""Uncertainty of predictions: calibrate it, measure how reliable it is, and select structures worth labelling."""

from geoeq.uncertainty.calibration import Calibration, fit_factor, fit_last_layer, measure_calibration
from geoeq.uncertainty.calibration_run import calibrate, uncertain_folder
from geoeq.uncertainty.select_frames import sample, select

__all__ = [
    "Calibration",
    "calibrate",
    "fit_factor",
    "fit_last_layer",
    "measure_calibration",
    "sample",
    "select",
    "uncertain_folder",
]
