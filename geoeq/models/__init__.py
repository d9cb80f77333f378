"""Networks, from PyG Data to named outputs, and the heads that name them."""

from geoeq.models.config import Configurable, from_config
from geoeq.models.egnn import EGNN
from geoeq.models.equiformer_v2 import EquiformerV2
from geoeq.models.equiformer_v2_heads import AttentionVector, SphereScalar
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
from geoeq.models.tensor_field_network import TensorFieldNetwork

#: the networks; each has ``example()`` and runs through the whole model suite of the tests.
NETWORKS = ("EGNN", "EquiformerV2", "TensorFieldNetwork")

__all__ = [
    "EGNN",
    "NETWORKS",
    "AttentionVector",
    "Configurable",
    "Dipole",
    "EquiformerV2",
    "GraphScalar",
    "Head",
    "Model",
    "NodeFeatures",
    "NodeScalar",
    "NodeVector",
    "Positions",
    "SphereScalar",
    "TensorFieldNetwork",
    "default_head",
    "from_config",
]
