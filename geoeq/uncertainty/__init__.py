"""Is what a model says of its own errors right: calibration, and structures worth labelling."""

from geoeq.uncertainty.calibrate import calibrate
from geoeq.uncertainty.calibration import Calibration, fit_factor, measure_calibration
from geoeq.uncertainty.find import uncertain_folder
from geoeq.uncertainty.last_layer_fit import fit_last_layer
from geoeq.uncertainty.sample import sample
from geoeq.uncertainty.selection import select

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
