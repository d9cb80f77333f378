"""Random arguments for every public layer: it is equivariant and finite, and sizes of zero are refused by name."""

from __future__ import annotations

import inspect
import math
import re
from typing import get_args

import pytest
import torch
from e3nn import o3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import geoeq.layers
from geoeq import kernels
from geoeq.errors import InputError
from geoeq.graph import edge_frames
from geoeq.layers import EquivariantGraphAttention, PonitaLayer
from geoeq.layers.edge_frames.so2 import from_edge_frame, to_edge_frame
from geoeq.layers.egnn import Count, Normalize
from geoeq.layers.equiformer import NormKind
from geoeq.layers.faenet import Message, NodeNorm
from geoeq.layers.inputs.embedding import EdgeInput, NodeInput
from geoeq.layers.irreps.layout import from_coefficients, sphere_irreps, to_coefficients
from geoeq.layers.nequip import SelfConnection
from geoeq.layers.ponita import Invariants
from geoeq.symmetry import assert_equivariant, random_batch

FLAG, RATE = st.booleans(), st.floats(0, 0.9)
SIZE, COUNT = st.integers(1, 5), st.integers(0, 3)
SIZES = st.lists(st.integers(1, 6), max_size=2)
LENGTH = st.floats(2, 6)  # Å
CUTOFF = st.none() | LENGTH
ONSET = st.floats(0.5, 1.9)  # below LENGTH
POSITIVE, EPS = st.floats(0.5, 20), st.floats(1e-6, 0.1)
EVEN_OR_ODD, ANY = st.sampled_from(["abs", "tanh"]), st.sampled_from(["silu", "sigmoid", "tanh", "softplus"])
#: Numbers of atoms in a batch of one, two or three graphs, with single atoms and pairs.
BATCHES = st.sampled_from([(1,), (2,), (6,), (1, 2), (2, 5), (4, 1, 2)])


def one_of(literal):
    return st.sampled_from(get_args(literal))


def some_of(literal):
    """A set of names, in any order."""
    return st.lists(st.sampled_from(get_args(literal)), unique=True)


def irreps(*entries, optional=()):
    """Irreps with 1 to 3 channels of each entry, and of none, some or all of the optional ones."""
    counts = [st.integers(1, 3) for _ in entries] + [st.integers(0, 3) for _ in optional]
    return st.tuples(*counts).map(
        lambda muls: "+".join(f"{mul}x{ir}" for mul, ir in zip(muls, (*entries, *optional), strict=True) if mul)
    )


def arguments(change=lambda drawn: drawn, /, **strategies):
    """Arguments by name; ``change`` makes those that depend on each other agree."""
    return st.fixed_dictionaries(strategies).map(change)


def orders_within_degrees(drawn):
    return drawn | {"mmax": min(drawn["mmax"], drawn["lmax"])}


def with_widths(drawn, inputs="inputs"):
    """Widths of inputs are given with these inputs only."""
    named = {"features": ("features_width", 4), "edge_attr": ("edge_attr_width", 0)}
    return drawn | {width: value * (name in drawn[inputs]) for name, (width, value) in named.items() if width in drawn}


def options_of_the_product(drawn):
    """The Gaunt products respect reflections, and the product in edge frames has no ``lmax_edge``."""
    drawn = drawn | ({"group": "E(3)"} if drawn["product"].startswith("gaunt") else {})
    return drawn | ({"lmax_edge": None} if drawn["product"] == "edge_frame" else {})


ANY_IRREPS = st.sampled_from(["0e", "0o", "1o"]).flatmap(lambda first: irreps(first, optional=("0e", "1o", "1e", "2e")))
SCALARS_FIRST = irreps("0e", optional=("0o", "1o", "1e", "2e"))
FIBER = irreps("0e", optional=("1o",))
SPHERE = {"lmax": st.integers(0, 2), "channels": SIZE}
ORDERS = SPHERE | {"mmax": st.integers(0, 2)}
GRID = st.sampled_from([None, 20, 30])
NORM = arguments(irreps=ANY_IRREPS, eps=EPS, affine=FLAG)
MESSAGES = {
    "edge_width": SIZE,
    "distance": FLAG,
    "hidden": SIZE,
    "sharing": st.sampled_from(["all", "output", "input", "none"]),
    "radial_norm": FLAG,
    "activation": st.sampled_from(["silu", "relu"]),
    "cutoff": CUTOFF,
}


ATTENTION = {
    "irreps": irreps("0e", "1o", optional=("1e", "2e")),
    "irreps_harmonics": st.sampled_from(["0e+1o+2e", "0e+1e+2e"]),
    "irreps_head": irreps("0e", "1o", "1e", "2e"),
    "num_heads": SIZE,
    "edge_width": SIZE,
    "radial_hidden": SIZES,
    "irreps_message": st.none() | irreps("0e", "1o"),
    "nonlinear": FLAG,
    "rescale_degree": FLAG,
    "attention_dropout": RATE,
    "dropout": RATE,
    "cutoff": CUTOFF,
}

#: Name -> valid arguments of its constructor.
ARGUMENTS = {
    "Activation": arguments(irreps=irreps("0e", optional=("0o",)), activation=EVEN_OR_ODD, normalize=FLAG),
    "BesselBasis": arguments(
        width=SIZE,
        cutoff=LENGTH,
        power=st.integers(2, 8),
        learned=FLAG,
        onset=st.none() | ONSET,
        prefactor=st.none() | POSITIVE,
    ),
    "CosineEnvelope": arguments(cutoff=LENGTH),
    "DegreeEmbedding": arguments(
        irreps=irreps("0e", "1o", optional=("0o", "1e", "2e")),
        irreps_harmonics=st.sampled_from(["0e", "0e+1o", "0e+1o+2e"]),
        edge_width=SIZE,
        radial_hidden=SIZES,
        average_degree=POSITIVE,
        cutoff=CUTOFF,
    ),
    "DegreeNorm": NORM,
    "EGNNLayer": arguments(
        width=SIZE,
        edge_width=COUNT,
        velocity=FLAG,
        attention=FLAG,
        normalize=one_of(Normalize),
        tanh=FLAG,
        residual=FLAG,
        update_positions=FLAG,
        cutoff=CUTOFF,
        detach_norm=FLAG,
        clamp=st.none() | st.just(1e6),  # not equivariant where it acts
        count=one_of(Count),
    ),
    "ESCNLayer": arguments(
        orders_within_degrees,
        **ORDERS,
        hidden=SIZE,
        edge_channels=SIZE,
        edge_width=SIZE,
        elements=FLAG,
        resolution=GRID,
        normalization=st.sampled_from(["component", "norm", "integral"]),
        average_degree=POSITIVE,
        residual=FLAG,
        cutoff=CUTOFF,
    ),
    "EdgeEmbedding": arguments(
        with_widths,
        inputs=some_of(EdgeInput).map(lambda names: [name for name in names if name != "edge_attr"]).filter(bool),
        edge_attr_width=st.just(0),
        num_basis=SIZE,
        cutoff=LENGTH,
    ),
    "EquiformerBlock": arguments(
        lambda drawn: drawn | {"attention": EquivariantGraphAttention(**drawn["attention"])},
        attention=arguments(**ATTENTION),
        irreps_middle=irreps("0e", "1o"),
        irreps_out=FIBER,
        norm=one_of(NormKind),
        dropout=RATE,
        stochastic_depth=RATE,
    ),
    "EquiformerV2Layer": arguments(
        orders_within_degrees,
        **ORDERS,
        hidden_channels=SIZE,
        heads=SIZE,
        alpha_channels=SIZE,
        value_channels=SIZE,
        feed_forward_channels=SIZE,
        edge_width=SIZE,
        edge_channels=SIZE,
        elements=FLAG,
        norm=st.sampled_from(["layer_norm", "layer_norm_sh", "rms_norm_sh"]),
        activation=st.sampled_from(["separable_s2", "s2", "gate"]),
        feed_forward=st.sampled_from(["separable_grid_mlp", "grid_mlp", "separable_s2", "s2", "gate"]),
        resolution=GRID,
        renormalize=FLAG,
        scores_from_values=FLAG,
        alpha_dropout=RATE,
        drop_path=RATE,
        cutoff=CUTOFF,
    ),
    "EquivariantDropout": arguments(irreps=ANY_IRREPS, rate=RATE),
    "EquivariantGraphAttention": arguments(**ATTENTION),
    "EquivariantGraphNorm": arguments(irreps=ANY_IRREPS, eps=EPS, affine=FLAG, shift=FLAG),
    "EquivariantLayerNorm": NORM,
    "EquivariantRMSNorm": NORM,
    "ExpNormalBasis": arguments(width=SIZE, cutoff=LENGTH),
    "FAENetLayer": arguments(
        lambda drawn: drawn | ({"edge_width": drawn["width"]} if drawn["message"] == "simple" else {}),
        width=SIZE,
        edge_width=SIZE,
        message=one_of(Message),
        norm=one_of(NodeNorm).filter(lambda norm: norm != "batch"),  # graphs of a batch affect each other
        second=FLAG,
        cutoff=CUTOFF,
    ),
    "GNNLayer": arguments(width=SIZE, edge_width=COUNT, cutoff=CUTOFF),
    "Gate": arguments(
        irreps=SCALARS_FIRST,
        activation=ANY,
        gate=st.sampled_from(["sigmoid", "tanh", "silu"]),
        normalize=FLAG,
        odd=st.sampled_from([None, "tanh"]),
    ),
    "GatedFeedForward": arguments(
        irreps=irreps("0e", "1o"), irreps_middle=irreps("0e", "1o"), irreps_out=st.none() | FIBER, dropout=RATE
    ),
    "GaussianBasis": arguments(width=SIZE, cutoff=LENGTH, spread=POSITIVE),
    "IrrepsEmbedding": arguments(
        lambda drawn: drawn | {"features_irreps": "4x0e" if "features" in drawn["inputs"] else ""},
        irreps=irreps("0e", "1o", optional=("0o", "2e")),
        inputs=some_of(NodeInput).filter(bool),
        features_irreps=st.just(""),
        velocity=FLAG,
        group=st.sampled_from(["E(3)", "SE(3)"]),
    ),
    "LearnedGaussianBasis": arguments(width=SIZE, cutoff=LENGTH),
    "Linear": arguments(irreps_in=irreps("0e", "1o", "0e", "2e", optional=("0o",)), irreps_out=FIBER, bias=FLAG),
    "NequIPLayer": arguments(
        irreps_in=ANY_IRREPS.map(lambda drawn: f"2x0e+{drawn}"),
        irreps_out=SCALARS_FIRST,
        edge_width=SIZE,
        hidden=SIZES,
        lmax_edge=st.integers(0, 2),
        self_connection=one_of(SelfConnection),
        element_width=SIZE,
        group=st.sampled_from(["E(3)", "SE(3)"]),
        neighbors=POSITIVE,
        bias=FLAG,
        residual=FLAG,
    ),
    "NodeEmbedding": arguments(
        with_widths, width=SIZE, inputs=some_of(NodeInput).filter(bool), features_width=st.just(0)
    ),
    "NormActivation": arguments(irreps=ANY_IRREPS, activation=ANY, bias=FLAG, eps=EPS),
    "OrientationKernels": arguments(
        width=SIZE,
        hidden=SIZE,
        degree=st.integers(1, 3),
        oriented=FLAG,
        invariants=one_of(Invariants),
        edge_width=COUNT,
        cutoff=CUTOFF,
    ),
    "PlainRadialNetwork": arguments(width=SIZE, hidden=SIZES, width_out=SIZE),
    "PolynomialEnvelope": arguments(cutoff=LENGTH, power=st.integers(2, 8)),
    "PonitaLayer": arguments(
        channels=SIZE,
        basis_width=SIZE,
        orientations=st.integers(1, 8),
        widening=st.integers(1, 3),
        layer_scale=st.none() | POSITIVE,
    ),
    "RadialNetwork": arguments(width=SIZE, hidden=SIZES, width_out=SIZE, offset=FLAG),
    "S2Activation": arguments(**SPHERE, resolution=GRID),
    "SE3Attention": arguments(
        lambda drawn: drawn | {"irreps_out": drawn["irreps_out"].format(drawn["heads"] * drawn["channels_div"])},
        irreps_in=FIBER,
        irreps_out=st.sampled_from(["{0}x0e", "{0}x0e+{0}x1o"]),
        heads=st.integers(1, 3),
        channels_div=st.integers(1, 2),
        **MESSAGES,
    ),
    "SE3Block": arguments(
        irreps_in=FIBER,
        irreps_hidden=st.just("4x0e+4x1o"),
        irreps_out=FIBER,
        layers=st.integers(0, 2),
        heads=st.integers(1, 2),
        channels_div=st.integers(1, 2),
        norm=st.sampled_from(["gate", "norm", "none"]),
        self_per_edge=FLAG,
        **MESSAGES,
    ),
    "SE3Convolution": arguments(irreps_in=FIBER, irreps_out=irreps("0e", "1o"), self_per_edge=FLAG, **MESSAGES),
    "SE3Norm": arguments(irreps=irreps("0e", optional=("1o", "2e")), kind=st.sampled_from(["gate", "norm"])),
    "SO2Convolution": arguments(
        orders_within_degrees,
        lmax=st.integers(0, 2),
        mmax=st.integers(0, 2),
        channels_in=SIZE,
        channels_out=SIZE,
        extra_scalars=COUNT,
        radial_widths=st.none() | st.lists(SIZE, min_size=1, max_size=3),
    ),
    "SeparableLayerNorm": arguments(**SPHERE, eps=EPS),
    "SeparableS2Activation": arguments(**SPHERE, resolution=GRID),
    "SiLUBasis": arguments(width=SIZE),
    "SigmoidBasis": arguments(width=st.integers(2, 6), cutoff=LENGTH, sharpness=POSITIVE, slope=st.floats(0, 0.1)),
    "StochasticDepth": arguments(irreps=ANY_IRREPS, rate=RATE),
    "TensorConvolution": arguments(
        options_of_the_product,
        **SPHERE,
        product=st.sampled_from(["clebsch_gordan", "gaunt_fourier", "gaunt_grid", "edge_frame"]),
        edge_width=SIZE,
        hidden=SIZES,
        lmax_edge=st.integers(0, 3),
        group=st.sampled_from(["E(3)", "SE(3)"]),
        neighbors=POSITIVE,
        gated=FLAG,
        cutoff=CUTOFF,
    ),
    "TensorProductConv": arguments(
        irreps_in=irreps("0e", "1o", optional=("1e", "2e")),
        irreps_harmonics=st.sampled_from(["0e+1o", "0e+1o+2e", "0e+1e"]),
        irreps_out=FIBER,
        mode=st.sampled_from(["uvu", "uvw"]),
    ),
    "TransformerLayer": arguments(
        lambda drawn: drawn | {"width": drawn["width"] * drawn["attention_heads"]},
        width=SIZE,
        attention_heads=st.integers(1, 3),
        widening=st.integers(1, 3),
        num_basis=COUNT,
        cutoff=CUTOFF,
        basis_cutoff=LENGTH,
    ),
    "VectorActivation": arguments(channels=SIZE, activation=ANY, eps=EPS),
    "VectorNeuronLayer": arguments(width=SIZE, cutoff=CUTOFF),
    "XPLOREnvelope": arguments(cutoff=LENGTH, onset=ONSET),
}


class OfEdges(nn.Module):
    """A ``TensorProductConv`` with weights that are a function of the lengths, as a layer."""

    def __init__(self, conv):
        super().__init__()
        self.conv, self.group = conv, conv.group
        self.irreps_in, self.irreps_out = conv.irreps_in, conv.irreps_out
        self.frequencies = nn.Parameter(torch.ones(conv.weight_numel))

    def forward(self, x, graph):
        return self.conv(x, torch.sin(graph.lengths.unsqueeze(-1) * self.frequencies), graph)


class InEdgeFrames(nn.Module):
    """An ``SO2Convolution`` of the senders' features between the rotations to and from the edge frames, as a layer."""

    group = "SE(3)"

    def __init__(self, conv, lmax, mmax):
        super().__init__()
        self.conv, self.lmax, self.mmax = conv, lmax, mmax
        self.channels, self.edge_width = conv.channels_in, 0 if conv.radial is None else conv.radial.irreps_in.dim
        self.irreps_in, self.irreps_out = sphere_irreps(lmax, conv.channels_in), sphere_irreps(lmax, conv.channels_out)

    def forward(self, x, graph):
        frames = edge_frames(graph, self.lmax)
        sent = kernels.gather(to_coefficients(x, self.lmax, self.channels), graph.sender)
        y, _ = self.conv(to_edge_frame(sent, frames, self.lmax, self.mmax), graph.edge_attr)
        sums = kernels.segment_sum(from_edge_frame(y, frames, self.lmax, self.mmax), graph)
        return from_coefficients(sums, self.lmax)


class OnOrientations(nn.Module):
    """PONITA's kernels and layer on orientations along the axes, as a layer that respects the symmetry of a cube."""

    group = "Oh"

    def __init__(self, kernel_basis, layer, oriented, edge_width):
        super().__init__()
        self.basis, self.layer, self.edge_width = kernel_basis, layer, edge_width
        axes = torch.eye(3, dtype=torch.float64)
        self.points = torch.cat([axes, -axes]) if oriented else torch.zeros(1, 3, dtype=torch.float64)
        self.channels = layer.bias.shape[0]
        self.irreps_in = self.irreps_out = o3.Irreps([(self.channels, "0e")])

    def forward(self, x, graph):
        on_points = x.unsqueeze(1).expand(-1, len(self.points), -1)
        return self.layer(on_points, self.basis(graph.vectors, self.points, graph), graph).mean(1)


def built(name, drawn):
    """The layer, in a form that ``assert_equivariant`` can call, in float64 and with random parameters."""
    torch.manual_seed(0)
    layer = getattr(geoeq.layers, name)(**drawn)
    if name == "TensorProductConv":
        layer = OfEdges(layer)
    elif name == "SO2Convolution":
        layer = InEdgeFrames(layer, drawn["lmax"], drawn["mmax"])
    elif name == "OrientationKernels":
        oriented = drawn["oriented"]
        layer = OnOrientations(
            layer, PonitaLayer(3, drawn["width"], 6 if oriented else 1), oriented, drawn["edge_width"]
        )
    elif name == "PonitaLayer":
        oriented = drawn["orientations"] > 1
        basis = geoeq.layers.OrientationKernels(drawn["basis_width"], 4, oriented=oriented)
        layer = OnOrientations(basis, PonitaLayer(**drawn | {"orientations": 6 if oriented else 1}), oriented, 0)
    layer = layer.double().eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer


def few(examples):
    """Settings of a test whose examples are the same in every run."""
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    return settings(max_examples=examples, derandomize=True, deadline=None, suppress_health_check=checks)


def simplest(strategy):
    """The first example, in which numbers are as small as they may be and options are off."""
    examples = []
    few(1)(given(strategy)(lambda drawn: examples.append(drawn)))()
    return examples[0]


def test_every_layer_has_arguments():
    """All of its arguments are drawn."""
    assert sorted(ARGUMENTS) == sorted(geoeq.layers.__all__)
    for name, strategy in ARGUMENTS.items():
        assert set(simplest(strategy)) == set(inspect.signature(getattr(geoeq.layers, name)).parameters), name


@pytest.mark.parametrize("examples", [8, pytest.param(30, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", sorted(ARGUMENTS))
def test_any_arguments_give_an_equivariant_layer(name, examples):
    """It is finite too, as infinite errors fail: on single atoms, pairs, and batches of one, two and three graphs."""

    @few(examples)
    @given(drawn=ARGUMENTS[name], sizes=BATCHES)
    def check(drawn, sizes):
        assert_equivariant(built(name, drawn), random_batch(sizes), samples=1)

    check()


def numbers(constructor):
    """Names of the arguments of a constructor that are numbers, and whether they are floats."""
    for name, parameter in inspect.signature(constructor).parameters.items():
        kind = re.search(r"\b(int|float)\b", str(parameter.annotation))
        if kind and name not in MAY_BE_NEGATIVE:
            yield name, kind[0] == "float", "Sequence" in str(parameter.annotation)


MAY_BE_NEGATIVE = {"slope", "layer_scale"}


@pytest.mark.parametrize("name", sorted(ARGUMENTS))
def test_numbers_out_of_range_are_refused_by_name(name):
    """Zero is out of range where it is not the simplest number drawn."""
    layer, valid = getattr(geoeq.layers, name), simplest(ARGUMENTS[name])
    for argument, is_float, is_list in numbers(layer):
        for bad in [-1, *([0] * (valid[argument] != 0)), *([math.nan, math.inf] * is_float)]:
            with pytest.raises(InputError, match=rf"\b{argument}\b"):
                print(layer(**valid | {argument: [bad] if is_list else bad}), "accepts", argument, bad)
