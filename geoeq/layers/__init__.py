"""Equivariant layers and their parts, for use in any PyTorch network; each class has ``example()``."""

from geoeq.layers.edge_frames.so2 import SO2Convolution
from geoeq.layers.egnn import EGNNLayer
from geoeq.layers.equiformer import EquiformerBlock, EquivariantGraphAttention
from geoeq.layers.equiformer_v2 import EquiformerV2Layer
from geoeq.layers.escn import ESCNLayer
from geoeq.layers.faenet import FAENetLayer
from geoeq.layers.gnn import GNNLayer
from geoeq.layers.inputs.degree_embedding import DegreeEmbedding
from geoeq.layers.inputs.embedding import EdgeEmbedding, IrrepsEmbedding, NodeEmbedding
from geoeq.layers.irreps.activation import Activation
from geoeq.layers.irreps.dropout import EquivariantDropout, StochasticDepth
from geoeq.layers.irreps.feed_forward import GatedFeedForward
from geoeq.layers.irreps.gate import Gate, NormActivation
from geoeq.layers.irreps.linear import Linear
from geoeq.layers.irreps.norms import DegreeNorm, EquivariantGraphNorm, EquivariantLayerNorm, EquivariantRMSNorm
from geoeq.layers.nequip import NequIPLayer
from geoeq.layers.ponita import OrientationKernels, PonitaLayer
from geoeq.layers.products.tensor_convolution import TensorConvolution
from geoeq.layers.products.tensor_product_conv import TensorProductConv
from geoeq.layers.radial.bases import (
    BesselBasis,
    ExpNormalBasis,
    GaussianBasis,
    LearnedGaussianBasis,
    SigmoidBasis,
    SiLUBasis,
)
from geoeq.layers.radial.envelope import CosineEnvelope, PolynomialEnvelope, XPLOREnvelope
from geoeq.layers.radial.radial_network import PlainRadialNetwork, RadialNetwork
from geoeq.layers.se3_transformer.se3_attention import SE3Attention
from geoeq.layers.se3_transformer.se3_block import SE3Block
from geoeq.layers.se3_transformer.se3_convolution import SE3Convolution
from geoeq.layers.se3_transformer.se3_norm import SE3Norm
from geoeq.layers.sphere.sphere_activation import S2Activation, SeparableS2Activation
from geoeq.layers.sphere.sphere_norm import SeparableLayerNorm
from geoeq.layers.transformer import TransformerLayer
from geoeq.layers.vector_neurons import VectorActivation, VectorNeuronLayer

__all__ = [
    "Activation",
    "BesselBasis",
    "CosineEnvelope",
    "DegreeEmbedding",
    "DegreeNorm",
    "EGNNLayer",
    "ESCNLayer",
    "EdgeEmbedding",
    "EquiformerBlock",
    "EquiformerV2Layer",
    "EquivariantDropout",
    "EquivariantGraphAttention",
    "EquivariantGraphNorm",
    "EquivariantLayerNorm",
    "EquivariantRMSNorm",
    "ExpNormalBasis",
    "FAENetLayer",
    "GNNLayer",
    "Gate",
    "GatedFeedForward",
    "GaussianBasis",
    "IrrepsEmbedding",
    "LearnedGaussianBasis",
    "Linear",
    "NequIPLayer",
    "NodeEmbedding",
    "NormActivation",
    "OrientationKernels",
    "PlainRadialNetwork",
    "PolynomialEnvelope",
    "PonitaLayer",
    "RadialNetwork",
    "S2Activation",
    "SE3Attention",
    "SE3Block",
    "SE3Convolution",
    "SE3Norm",
    "SO2Convolution",
    "SeparableLayerNorm",
    "SeparableS2Activation",
    "SiLUBasis",
    "SigmoidBasis",
    "StochasticDepth",
    "TensorConvolution",
    "TensorProductConv",
    "TransformerLayer",
    "VectorActivation",
    "VectorNeuronLayer",
    "XPLOREnvelope",
]
