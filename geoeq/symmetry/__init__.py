"""Does this layer or model keep the symmetries that it claims?

``assert_equivariant(f)`` checks ``f(g·x) == g·f(x)`` for random rotations, reflections, translations and permutations,
and that a batch gives what its graphs give one by one. ``report(f)`` checks that and more for whole models, strangers'
too, and calculators of ASE.
"""

from geoeq.geometry.groups import Symmetry
from geoeq.geometry.random_structures import random_batch
from geoeq.symmetry.equivariance import assert_equivariant, equivariance_errors
from geoeq.symmetry.functions import layer_graph
from geoeq.symmetry.layers import Culprit, LayerReport, layer_report
from geoeq.symmetry.pair import LayerError
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
]
