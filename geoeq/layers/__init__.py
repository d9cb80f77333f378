"""Layers and their parts, for anybody's network; each has ``example()``."""

from geoeq.layers.egnn import EGNNLayer
from geoeq.layers.embedding import EdgeEmbedding, IrrepsEmbedding, NodeEmbedding
from geoeq.layers.envelope import CosineEnvelope, PolynomialEnvelope
from geoeq.layers.radial import BesselBasis, ExpNormalBasis, GaussianBasis
from geoeq.layers.s2_activation import S2Activation, SeparableS2Activation
from geoeq.layers.sphere_norm import SeparableLayerNorm
from geoeq.layers.tensor_product import TensorProductConv

__all__ = [
    "BesselBasis",
    "CosineEnvelope",
    "EGNNLayer",
    "EdgeEmbedding",
    "ExpNormalBasis",
    "GaussianBasis",
    "IrrepsEmbedding",
    "NodeEmbedding",
    "PolynomialEnvelope",
    "S2Activation",
    "SeparableLayerNorm",
    "SeparableS2Activation",
    "TensorProductConv",
]
