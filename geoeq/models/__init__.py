"""Networks, from PyG Data to named outputs, and the heads that name them."""

from geoeq.models.canonicalization import Canonicalization
from geoeq.models.canonicalizer import Canonicalizer, PCACanonicalizer
from geoeq.models.config import Configurable, from_config
from geoeq.models.coulomb import Coulomb
from geoeq.models.dispersion import Dispersion
from geoeq.models.egnn import EGNN
from geoeq.models.ensemble import Ensemble
from geoeq.models.equiformer import Equiformer
from geoeq.models.equiformer_v2 import EquiformerV2
from geoeq.models.equiformer_v2_heads import AttentionVector, SphereScalar
from geoeq.models.escn import ESCN
from geoeq.models.fa_gnn import FAGNN
from geoeq.models.faenet import FAENet
from geoeq.models.faenet_heads import DecodedVector, EveryLayerScalar
from geoeq.models.forces import Forces
from geoeq.models.frame_averaging import FrameAveraging
from geoeq.models.framed import FramedModel
from geoeq.models.gnn import GNN
from geoeq.models.group_averaging import GroupAveraging
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
from geoeq.models.hessians import hessian, hessian_vector_product
from geoeq.models.iterative_se3_transformer import IterativeSE3Transformer
from geoeq.models.last_layer import LastLayer
from geoeq.models.model import Model
from geoeq.models.network_canonicalizer import FrameVectors, NetworkCanonicalizer
from geoeq.models.ponita import PONITA
from geoeq.models.prior import Prior, pairs_within
from geoeq.models.sampled_heads import SampledScalar, SampledVector
from geoeq.models.score_canonicalizer import FrameScore, ScoreCanonicalizer
from geoeq.models.se3_transformer import SE3Transformer
from geoeq.models.soft_equivariance import SOFT_SYMMETRIES, SoftEquivariance
from geoeq.models.tensor_field_network import TensorFieldNetwork
from geoeq.models.tinvnn import TinvNN
from geoeq.models.transformer import Transformer
from geoeq.models.vector_neurons import VectorNeurons
from geoeq.models.with_priors import WithPriors
from geoeq.models.wrapper import SameSymmetry, Wrapper
from geoeq.models.zbl import ZBL

#: the networks; each has ``example()`` and runs through the whole model suite of the tests.
NETWORKS = (
    "EGNN",
    "ESCN",
    "Equiformer",
    "EquiformerV2",
    "FAENet",
    "IterativeSE3Transformer",
    "PONITA",
    "SE3Transformer",
    "TensorFieldNetwork",
    "VectorNeurons",
)

#: networks of coordinates less their centroid, through which atoms feel each other at any distance: no cutoff ends
#: what they feel, and sums over atoms are not extensive. They have ``example()``, and all else is asked of them.
COORDINATE_NETWORKS = ("FAGNN", "GNN", "Transformer")

__all__ = [
    "COORDINATE_NETWORKS",
    "EGNN",
    "ESCN",
    "FAGNN",
    "GNN",
    "NETWORKS",
    "PONITA",
    "SOFT_SYMMETRIES",
    "ZBL",
    "AttentionVector",
    "Canonicalization",
    "Canonicalizer",
    "Configurable",
    "Coulomb",
    "DecodedVector",
    "Dipole",
    "Dispersion",
    "Ensemble",
    "Equiformer",
    "EquiformerV2",
    "EveryLayerScalar",
    "FAENet",
    "Forces",
    "FrameAveraging",
    "FrameScore",
    "FrameVectors",
    "FramedModel",
    "GraphScalar",
    "GroupAveraging",
    "Head",
    "IterativeSE3Transformer",
    "LastLayer",
    "Model",
    "NetworkCanonicalizer",
    "NodeFeatures",
    "NodeScalar",
    "NodeVector",
    "PCACanonicalizer",
    "Positions",
    "Prior",
    "SE3Transformer",
    "SameSymmetry",
    "SampledScalar",
    "SampledVector",
    "ScoreCanonicalizer",
    "SoftEquivariance",
    "SphereScalar",
    "TensorFieldNetwork",
    "TinvNN",
    "Transformer",
    "VectorNeurons",
    "WithPriors",
    "Wrapper",
    "default_head",
    "from_config",
    "hessian",
    "hessian_vector_product",
    "pairs_within",
]
