"""Does this layer or model keep the symmetries that it claims?"""

from geoeq.random_structures import random_batch
from geoeq.symmetry.equivariance import assert_equivariant, equivariance_errors
from geoeq.symmetry.functions import layer_graph
from geoeq.symmetry.group import Symmetry

__all__ = ["Symmetry", "assert_equivariant", "equivariance_errors", "layer_graph", "random_batch"]
