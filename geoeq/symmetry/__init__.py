"""Check the symmetries that a layer or model claims.

``assert_equivariant(f)`` checks ``f(g·x) == g·f(x)`` for random rotations, reflections, translations and permutations,
and that a batch gives the same results as its graphs one by one. ``report(f)`` runs these and further checks on whole
models, including those of other packages, and on ASE calculators.
"""

from geoeq.geometry.groups import Symmetry
from geoeq.geometry.random_structures import random_batch
from geoeq.symmetry.equivariance import assert_equivariant, equivariance_errors
from geoeq.symmetry.functions import layer_graph
from geoeq.symmetry.grid_error import stated_error, with_finer_grids
from geoeq.symmetry.hooks import LayerError
from geoeq.symmetry.layers import Culprit, LayerReport, layer_report
from geoeq.symmetry.suite import CHECKS
from geoeq.symmetry.symmetry_report import Report, Result, report

__all__ = [
    "CHECKS",
    "Culprit",
    "LayerError",
    "LayerReport",
    "Report",
    "Result",
    "Symmetry",
    "assert_equivariant",
    "equivariance_errors",
    "layer_graph",
    "layer_report",
    "random_batch",
    "report",
    "stated_error",
    "with_finer_grids",
]
