"""Networks, from PyG Data to named outputs, and the heads that name them."""

from geoeq.models.config import Configurable, from_config
from geoeq.models.egnn import EGNN
from geoeq.models.heads import (
    Dipole,
    GraphScalar,
    Head,
    NodeFeatures,
    NodeScalar,
    NodeVector,
    Positions,
    default_head,
)
from geoeq.models.model import Model

#: the networks; each has ``example()`` and runs through the whole model suite of the tests.
NETWORKS = ("EGNN",)

__all__ = [
    "EGNN",
    "NETWORKS",
    "Configurable",
    "Dipole",
    "GraphScalar",
    "Head",
    "Model",
    "NodeFeatures",
    "NodeScalar",
    "NodeVector",
    "Positions",
    "default_head",
    "from_config",
]
