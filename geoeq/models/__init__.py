"""Models, from PyG Data to named outputs: networks, heads, wrappers, symmetrization and priors."""

from geoeq.models.checkpoint import load_checkpoint, save_checkpoint
from geoeq.models.config import Configurable, from_config
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
from geoeq.models.heads.sampled_heads import SampledScalar, SampledVector
from geoeq.models.model import Model
from geoeq.models.networks.egnn import EGNN
from geoeq.models.networks.equiformer import Equiformer
from geoeq.models.networks.equiformer_v2 import EquiformerV2
from geoeq.models.networks.equiformer_v2_heads import AttentionVector, SphereScalar
from geoeq.models.networks.escn import ESCN
from geoeq.models.networks.fa_gnn import FAGNN
from geoeq.models.networks.faenet import FAENet
from geoeq.models.networks.faenet_heads import DecodedVector, EveryLayerScalar
from geoeq.models.networks.gnn import GNN
from geoeq.models.networks.iterative_se3_transformer import IterativeSE3Transformer
from geoeq.models.networks.nequip import NequIP
from geoeq.models.networks.ponita import PONITA
from geoeq.models.networks.se3_transformer import SE3Transformer
from geoeq.models.networks.tensor_field_network import TensorFieldNetwork
from geoeq.models.networks.transformer import Transformer
from geoeq.models.networks.vector_neurons import VectorNeurons
from geoeq.models.priors.coulomb import Coulomb
from geoeq.models.priors.dispersion import Dispersion
from geoeq.models.priors.prior import Prior, pairs_within
from geoeq.models.priors.with_priors import WithPriors
from geoeq.models.priors.zbl import ZBL
from geoeq.models.symmetrized.canonicalization import Canonicalization
from geoeq.models.symmetrized.canonicalizer import Canonicalizer, PCACanonicalizer
from geoeq.models.symmetrized.frame_averaging import FrameAveraging
from geoeq.models.symmetrized.framed import FramedModel
from geoeq.models.symmetrized.group_averaging import GroupAveraging
from geoeq.models.symmetrized.network_canonicalizer import FrameVectors, NetworkCanonicalizer
from geoeq.models.symmetrized.score_canonicalizer import FrameScore, ScoreCanonicalizer
from geoeq.models.symmetrized.tinvnn import TinvNN
from geoeq.models.wrappers.ensemble import Ensemble
from geoeq.models.wrappers.forces import Forces
from geoeq.models.wrappers.hessians import hessian, hessian_vector_product
from geoeq.models.wrappers.last_layer import LastLayer
from geoeq.models.wrappers.soft_equivariance import SOFT_SYMMETRIES, SoftEquivariance
from geoeq.models.wrappers.wrapper import SameSymmetry, Wrapper

#: names of the networks; each has ``example()`` and runs through the whole model test suite.
NETWORKS = (
    "EGNN",
    "ESCN",
    "Equiformer",
    "EquiformerV2",
    "FAENet",
    "IterativeSE3Transformer",
    "NequIP",
    "PONITA",
    "SE3Transformer",
    "TensorFieldNetwork",
    "VectorNeurons",
)

#: networks that read coordinates relative to the centroid, so that atoms affect each other at any distance, whatever
#: the cutoff, and sums over atoms are not extensive. The rest of the model test suite applies to them, too.
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
    "NequIP",
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
    "load_checkpoint",
    "pairs_within",
    "save_checkpoint",
]
