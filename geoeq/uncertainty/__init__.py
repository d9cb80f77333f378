"""Is what a model says of its own errors right: calibration, and structures worth labelling."""

from geoeq.uncertainty.calibration import Calibration, fit_factor, measure_calibration
from geoeq.uncertainty.calibration_run import calibrate
from geoeq.uncertainty.last_layer_fit import fit_last_layer
from geoeq.uncertainty.select_frames import sample
from geoeq.uncertainty.selection import select
from geoeq.uncertainty.uncertain_model import uncertain_folder

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
