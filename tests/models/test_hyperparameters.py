"""Random arguments for every network: equivariant, finite, the same from its configuration; zeros refused by name."""

from __future__ import annotations

import inspect
import json
import math
import re
from typing import get_args

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import geoeq.models
from geoeq.errors import InputError
from geoeq.layers.egnn import Count, Normalize
from geoeq.layers.equiformer import NormKind
from geoeq.layers.faenet import Message, NodeNorm
from geoeq.layers.inputs.embedding import EdgeInput, NodeInput
from geoeq.layers.nequip import SelfConnection
from geoeq.layers.ponita import Invariants
from geoeq.layers.products import Product
from geoeq.layers.sphere.s2_grid import Normalization
from geoeq.layers.sphere.sphere_activation import SphereNonlinearity
from geoeq.layers.sphere.sphere_feed_forward import FeedForwardKind
from geoeq.layers.sphere.sphere_norm import SphereNormKind
from geoeq.models import (
    DecodedVector,
    EveryLayerScalar,
    GraphScalar,
    Model,
    NodeVector,
    Positions,
    SampledScalar,
    SampledVector,
    SphereScalar,
    from_config,
)
from geoeq.models.networks.equiformer import BasisKind
from geoeq.models.networks.equiformer_v2 import AtomEdgeEmbedding
from geoeq.models.networks.escn import DistanceBasis
from geoeq.models.networks.faenet import Skip
from geoeq.models.networks.ponita import Orientations
from geoeq.symmetry import assert_equivariant, random_batch

FLAG, RATE = st.booleans(), st.floats(0, 0.9)
SIZE, FEW = st.integers(1, 4), st.integers(1, 2)
LENGTH = st.floats(2, 5)  # Å
POSITIVE = st.floats(0.5, 20)
DEGREES = {"lmax": st.integers(0, 2)}
GRID = st.sampled_from([None, 20])
#: Numbers of atoms in a batch of one, two or three graphs, with single atoms and pairs.
BATCHES = st.sampled_from([(1,), (2,), (6,), (1, 2), (2, 5), (4, 1, 2)])


def one_of(literal):
    return st.sampled_from(get_args(literal))


def some_of(literal, least=0):
    """Names, in any order; edge attributes would need ``data.edge_index``."""
    names = [name for name in get_args(literal) if name != "edge_attr"]
    return st.lists(st.sampled_from(names), unique=True, min_size=least)


def irreps(*entries, optional=()):
    """Irreps with 1 or 2 channels of each entry, and of none, some or all of the optional ones."""
    counts = [st.integers(1, 2) for _ in entries] + [st.integers(0, 2) for _ in optional]
    return st.tuples(*counts).map(
        lambda muls: "+".join(f"{mul}x{ir}" for mul, ir in zip(muls, (*entries, *optional), strict=True) if mul)
    )


NODES = {"node_inputs": some_of(NodeInput, least=1), "velocity": FLAG}
WITH_WIDTH = NODES | {"features_width": st.just(0)}
WITH_IRREPS = NODES | {"features_irreps": st.just("")}
EDGES = {"edge_inputs": some_of(EdgeInput), "edge_attr_width": st.just(0)}
COMMON = {"cutoff": st.none() | LENGTH, "elements": st.sampled_from([None, [1, 6, 7, 8, 16]])}
BASIS = {"num_basis": SIZE, "basis_cutoff": st.none() | LENGTH}
NEQUIP_IRREPS = irreps("0e", optional=("0o", "1o", "1e", "2e"))
SE3 = WITH_IRREPS | EDGES | COMMON | BASIS
SE3 |= {"width": SIZE, "channels_div": FEW, "attention_heads": FEW, "hidden": SIZE, "norm": st.sampled_from(["gate"])}
SE3 |= {"distance": st.sampled_from([None, True]), "radial_norm": FLAG, "activation": st.just("silu")}


def scalar_and_vector(drawn):
    return [GraphScalar("energy"), NodeVector("forces")]


def scalar_and_positions(drawn):
    return [GraphScalar("energy"), Positions()]


def scalar_and_decoded(drawn):
    return [GraphScalar("energy"), DecodedVector("forces")]


def network(heads, change=lambda drawn: drawn, /, **strategies):
    """Arguments by name with heads; ``change`` makes those that depend on each other agree."""

    def agree(drawn):
        if "features" in drawn.get("node_inputs", ()):
            drawn = drawn | {name: value for name, value in FEATURES.items() if name in drawn}
        needs_length = "basis_cutoff" not in drawn or drawn["basis_cutoff"] is None
        if drawn["cutoff"] is None and needs_length and ("bessel" in drawn.get("edge_inputs", ()) or "basis" in drawn):
            drawn = drawn | {"cutoff": 4.0}
        if drawn.get("lmax") == 0 or drawn.get("num_orientations") == 0:  # no vectors
            drawn = drawn | {"velocity": False}
        drawn = change(drawn)
        return drawn | {"heads": heads(drawn)}

    return st.fixed_dictionaries(strategies).map(agree)


#: Arguments for ``data.x`` of the random structures.
FEATURES = {"features_width": 4, "features_irreps": "4x0e"}


def orders_within_degrees(drawn):
    length = {} if drawn["cutoff"] or drawn["basis_cutoff"] else {"basis_cutoff": 4.0}
    return drawn | {"mmax": min(drawn["mmax"], drawn["lmax"])} | length


def one_parity(drawn):
    """With even vectors among the harmonics, all irreps are even, and the group is SE(3)."""
    if "1e" not in drawn["irreps_harmonics"]:
        return drawn
    return drawn | {name: value.replace("o", "e") for name, value in drawn.items() if name in PARITIES and value}


PARITIES = ("irreps", "irreps_head", "irreps_middle", "irreps_out", "irreps_message")


def equiformer_heads(drawn):
    return scalar_and_vector(drawn) if "1" in re.sub(r"\d+x", "", drawn["irreps_out"]) else [GraphScalar("energy")]


def faenet(drawn):
    """The element and the filters of vectors and of distances have channels; simple messages have those of nodes."""
    drawn = drawn | {"width": drawn["width"] + 1 + drawn["tag_width"] + 2 * drawn["table_width"]}
    length = {} if drawn["cutoff"] or drawn["basis_cutoff"] else {"basis_cutoff": 4.0}
    return drawn | length | ({"filters": drawn["width"]} if drawn["message"] == "simple" else {})


def faenet_heads(drawn):
    scalar = EveryLayerScalar if drawn["skip"] == "layers" else GraphScalar
    return [scalar("energy"), DecodedVector("forces")]


def whole_heads(drawn):
    """The heads divide the channels of keys and values."""
    width = drawn["width"] * drawn["attention_heads"] * drawn.get("channels_div", 1)
    return drawn | {"width": width}


def vectors_if_any(drawn):
    return scalar_and_vector(drawn) if drawn["lmax"] else [GraphScalar("energy")]


def nequip_heads(drawn):
    """Vectors need a harmonic, and a place in the last layer."""
    last = drawn["irreps_last"] or (drawn["irreps"] if isinstance(drawn["irreps"], str) else drawn["irreps"][-1])
    return scalar_and_vector(drawn) if "1o" in last and drawn["lmax_edge"] != 0 else [GraphScalar("energy")]


def nequip(drawn):
    """Irreps of each layer, and a length, which is not beyond the cutoff."""
    length = {} if drawn["cutoff"] or drawn["basis_cutoff"] else {"basis_cutoff": 4.0}
    if drawn["cutoff"] and drawn["basis_cutoff"]:
        length = {"basis_cutoff": min(drawn["cutoff"], drawn["basis_cutoff"])}
    several = {} if isinstance(drawn["irreps"], str) else {"irreps": drawn["irreps"] * drawn["layers"]}
    return drawn | length | several


def options_of_the_product(drawn):
    """The Gaunt products respect reflections, and the product in edge frames has no ``lmax_edge``."""
    drawn = drawn | ({"group": "E(3)"} if drawn["product"].startswith("gaunt") else {})
    length = {"basis_cutoff": 4.0} if "bessel" in drawn["edge_inputs"] and not drawn["cutoff"] else {}
    return drawn | length | ({"lmax_edge": None} if drawn["product"] == "edge_frame" else {})


#: Name -> valid arguments of its constructor.
ARGUMENTS = {
    "EGNN": network(
        scalar_and_positions,
        width=SIZE,
        layers=FEW,
        num_basis=SIZE,
        attention=FLAG,
        normalize=one_of(Normalize),
        tanh=FLAG,
        residual=FLAG,
        update_positions=FLAG,
        detach_norm=FLAG,
        clamp=st.sampled_from([None, 1e6]),  # not equivariant where it acts
        count=one_of(Count),
        **WITH_WIDTH | EDGES | COMMON,
    ),
    "ESCN": network(
        lambda drawn: [SampledScalar("energy", degree=6), SampledVector("forces", degree=6)],
        orders_within_degrees,
        mmax=st.integers(0, 2),
        channels=SIZE,
        hidden_channels=SIZE,
        edge_channels=SIZE,
        layers=FEW,
        resolution=GRID,
        normalization=one_of(Normalization),
        average_degree=POSITIVE,
        first_residual=FLAG,
        basis=one_of(DistanceBasis),
        basis_spread=POSITIVE,
        detach_frames=FLAG,
        **DEGREES | WITH_IRREPS | EDGES | COMMON | BASIS | {"num_basis": st.integers(2, 5)},
    ),
    "Equiformer": network(
        equiformer_heads,
        one_parity,
        irreps=irreps("0e", "1o", "2e"),
        irreps_harmonics=st.sampled_from(["1x0e+1x1o+1x2e", "1x0e+1x1e+1x2e"]),
        irreps_head=irreps("0e", "1o", "2e"),
        num_heads=FEW,
        irreps_middle=irreps("0e", "1o", "2e"),
        irreps_out=irreps("0e", optional=("1o",)),
        irreps_message=st.none() | irreps("0e", "1o"),
        layers=FEW,
        nonlinear=FLAG,
        rescale_degree=FLAG,
        norm=one_of(NormKind),
        basis=one_of(BasisKind),
        radial_hidden=st.lists(SIZE, max_size=2),
        average_degree=POSITIVE,
        attention_dropout=RATE,
        dropout=RATE,
        out_dropout=RATE,
        stochastic_depth=RATE,
        smooth=FLAG,
        **WITH_IRREPS | EDGES | COMMON | BASIS,
    ),
    "EquiformerV2": network(
        lambda drawn: [
            SphereScalar("energy", 3, drawn["feed_forward"], drawn["resolution"]),
            *([NodeVector("forces")] if drawn["lmax"] else []),
        ],
        orders_within_degrees,
        mmax=st.integers(0, 2),
        layers=FEW,
        channels=SIZE,
        hidden_channels=SIZE,
        attention_heads=FEW,
        alpha_channels=SIZE,
        value_channels=SIZE,
        feed_forward_channels=SIZE,
        norm=one_of(SphereNormKind),
        activation=one_of(SphereNonlinearity),
        feed_forward=one_of(FeedForwardKind),
        resolution=GRID,
        renormalize=FLAG,
        scores_from_values=FLAG,
        edge_channels=SIZE,
        atom_edge_embedding=one_of(AtomEdgeEmbedding),
        average_degree=POSITIVE,
        alpha_dropout=RATE,
        drop_path=RATE,
        detach_frames=FLAG,
        checkpoint_blocks=FLAG,
        **DEGREES | WITH_IRREPS | EDGES | COMMON | BASIS,
    ),
    "FAENet": network(
        faenet_heads,
        faenet,
        width=SIZE,
        filters=st.integers(2, 5),
        layers=FEW,
        message=one_of(Message),
        norm=one_of(NodeNorm).filter(lambda norm: norm != "batch"),  # graphs of a batch affect each other
        second=FLAG,
        skip=one_of(Skip),
        tag_width=st.integers(0, 2),
        table_width=st.integers(0, 2),
        properties=st.just([]),
        property_width=st.just(0),
        second_embedding=FLAG,
        **COMMON | BASIS,
    ),
    "FAGNN": network(
        scalar_and_positions,
        lambda drawn: drawn | {"width": drawn["scalars"] + 3 * drawn["width"]},
        width=SIZE,
        layers=FEW,
        scalars=st.integers(0, 3),
        num_basis=SIZE,
        **WITH_WIDTH | EDGES | COMMON | {"node_inputs": some_of(NodeInput)},
    ),
    "GNN": network(
        scalar_and_decoded,
        width=SIZE,
        layers=FEW,
        num_basis=SIZE,
        **WITH_WIDTH | EDGES | COMMON | {"node_inputs": some_of(NodeInput)},
    ),
    "IterativeSE3Transformer": network(
        scalar_and_vector, whole_heads, blocks=FEW, layers=FEW, **SE3 | {"lmax": st.just(1)}
    ),
    "NequIP": network(
        nequip_heads,
        nequip,
        irreps=NEQUIP_IRREPS | NEQUIP_IRREPS.map(lambda each: [each]),
        irreps_last=st.none() | NEQUIP_IRREPS,
        layers=FEW,
        lmax_edge=st.integers(0, 2) | st.none(),
        group=st.sampled_from(["E(3)", "SE(3)"]),
        self_connection=one_of(SelfConnection),
        self_connection_first=st.none() | one_of(SelfConnection),
        element_width=SIZE,
        embedding_width=st.none() | SIZE,
        hidden=st.lists(SIZE, max_size=2),
        neighbors=POSITIVE,
        bias=FLAG,
        residual=FLAG,
        learned_basis=FLAG,
        power=st.integers(2, 8),
        onset=st.none() | st.floats(0.5, 1.9),
        **WITH_IRREPS | EDGES | COMMON | BASIS,
    ),
    "PONITA": network(
        lambda drawn: scalar_and_vector(drawn) if drawn["vectors"] else [GraphScalar("energy")],
        lambda drawn: drawn if drawn["num_orientations"] else drawn | {"vectors": 0},
        channels=SIZE,
        layers=FEW,
        num_orientations=st.sampled_from([0, 4, 9]),
        orientations=one_of(Orientations),
        invariants=one_of(Invariants),
        basis_width=SIZE,
        degree=st.integers(1, 3),
        widening=FEW,
        layer_scale=st.none() | POSITIVE,
        scalars=SIZE,
        vectors=st.integers(0, 3),
        every_layer=FLAG,
        **WITH_IRREPS | EDGES | COMMON,
    ),
    "SE3Transformer": network(
        vectors_if_any,
        whole_heads,
        layers=st.integers(0, 2),
        irreps_out=st.sampled_from([None, "3x0e+2x1o"]),
        embed=st.just(True),
        sharing=st.sampled_from(["all", "output", "input", "none"]),
        self_per_edge=FLAG,
        **SE3 | DEGREES,
    ),
    "TensorFieldNetwork": network(
        vectors_if_any,
        options_of_the_product,
        width=SIZE,
        layers=FEW,
        product=one_of(Product),
        lmax_edge=st.integers(0, 2),
        group=st.sampled_from(["E(3)", "SE(3)"]),
        hidden=st.lists(SIZE, max_size=2),
        neighbors=POSITIVE,
        **DEGREES | WITH_IRREPS | EDGES | COMMON | BASIS | {"edge_inputs": some_of(EdgeInput, least=1)},
    ),
    "Transformer": network(
        scalar_and_decoded,
        whole_heads,
        width=SIZE,
        layers=FEW,
        attention_heads=FEW,
        widening=FEW,
        **WITH_WIDTH | COMMON | {"num_basis": st.integers(0, 3), "basis_cutoff": LENGTH},
    ),
    "VectorNeurons": network(scalar_and_vector, width=SIZE, layers=FEW, **WITH_WIDTH | COMMON),
}

#: Arguments that may be negative.
SIGNED = {"layer_scale", "seed"}


def plain():
    return geoeq.models.GNN([GraphScalar("energy")], width=4, layers=1, cutoff=4.0)


#: Name -> other arguments of heads, priors and wrappers with numbers among their arguments.
PARTS = {
    "AttentionVector": dict,
    "Coulomb": dict,
    "DecodedVector": lambda: {"name": "forces"},
    "Dispersion": lambda: {"functional": "pbe"},
    "GroupAveraging": lambda: {"model": plain()},
    "NetworkCanonicalizer": lambda: {"network": geoeq.models.EGNN([geoeq.models.FrameVectors()], 4, 1)},
    "NodeFeatures": dict,
    "PCACanonicalizer": dict,
    "SampledScalar": lambda: {"name": "energy"},
    "SampledVector": lambda: {"name": "forces"},
    "SoftEquivariance": lambda: {"model": plain()},
    "SphereScalar": dict,
    "TinvNN": lambda: {"model": geoeq.models.TinvNN.example().model},
    "ZBL": dict,
}

#: Arguments of these for which zero means something.
MAY_BE_ZERO = {"degree", "mmax", "noise", "power", "strength"}


def few(examples):
    """Settings of a test whose examples are the same in every run."""
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    return settings(max_examples=examples, derandomize=True, deadline=None, suppress_health_check=checks)


def simplest(strategy):
    """The first example, in which numbers are as small as they may be and options are off."""
    examples = []
    few(1)(given(strategy)(lambda drawn: examples.append(drawn)))()
    return examples[0]


def built(name, drawn):
    torch.manual_seed(0)
    model = getattr(geoeq.models, name)(**drawn).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def structures(name, drawn, sizes, periodic):
    """Crystals need a cutoff, and networks that read coordinates do not see them as they are."""
    return random_batch(sizes, periodic=periodic and drawn["cutoff"] is not None and name in geoeq.models.NETWORKS)


def test_every_network_has_arguments():
    """All of its arguments are drawn."""
    assert sorted(ARGUMENTS) == sorted((*geoeq.models.NETWORKS, *geoeq.models.COORDINATE_NETWORKS))
    for name, strategy in ARGUMENTS.items():
        assert set(simplest(strategy)) == set(inspect.signature(getattr(geoeq.models, name)).parameters), name


@pytest.mark.parametrize("examples", [5, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", sorted(ARGUMENTS))
def test_any_arguments_give_an_equivariant_network_that_can_be_made_again(name, examples):
    """It is finite too, with its derivative, on single atoms, pairs, and batches of one, two and three graphs."""

    @few(examples)
    @given(drawn=ARGUMENTS[name], sizes=BATCHES, periodic=FLAG)
    def check(drawn, sizes, periodic):
        model, data = built(name, drawn), structures(name, drawn, sizes, periodic)
        assert_equivariant(model, data, samples=1)

        data.pos.requires_grad_()
        outputs = model(data)
        total = sum(value.sum() for value in outputs.values())
        if total.requires_grad:
            (gradient,) = torch.autograd.grad(total, data.pos, allow_unused=True)
            assert gradient is None or gradient.isfinite().all()

        config = json.loads(json.dumps(model.config()))
        again = from_config(config, Model).double().eval()
        again.load_state_dict(model.state_dict())
        assert again.config() == config
        assert all(torch.equal(again(data)[key], value) for key, value in outputs.items())

    check()


def test_parts_of_models_refuse_numbers_out_of_range_by_name():
    for name, others in PARTS.items():
        part = getattr(geoeq.models, name)
        for argument, is_float, _ in numbers(part):
            zero = [0] * (argument not in MAY_BE_ZERO or name == "ZBL")
            for bad in [-1, *zero, *([math.nan, math.inf] * is_float)]:
                with pytest.raises(InputError, match=rf"\b{argument}\b"):
                    print(part(**others() | {argument: bad}), "accepts", argument, bad)


def test_every_part_with_numbers_is_tested():
    parts = {name: getattr(geoeq.models, name) for name in geoeq.models.__all__}
    classes = {name: part for name, part in parts.items() if inspect.isclass(part) and not inspect.isabstract(part)}
    assert {name for name, part in classes.items() if list(numbers(part))} == {*ARGUMENTS, *PARTS}


def numbers(constructor):
    """Names of the arguments of a constructor that are numbers, whether they are floats, and lists."""
    for name, parameter in inspect.signature(constructor).parameters.items():
        kind = re.search(r"\b(int|float)\b", str(parameter.annotation))
        if kind and name not in SIGNED | {"elements", "properties", "factors"}:
            yield name, kind[0] == "float", "Sequence" in str(parameter.annotation)


@pytest.mark.parametrize("name", sorted(ARGUMENTS))
def test_numbers_out_of_range_are_refused_by_name(name):
    """Zero is out of range where it is not the simplest number drawn; PONITA may have vectors only."""
    model, valid = getattr(geoeq.models, name), simplest(ARGUMENTS[name])
    for argument, is_float, is_list in numbers(model):
        for bad in [-1, *([0] * (valid[argument] != 0 and argument != "scalars")), *([math.nan, math.inf] * is_float)]:
            with pytest.raises(InputError, match=rf"{name}\b.*\b{argument}\b"):
                print(model(**valid | {argument: [bad] if is_list else bad}), "accepts", argument, bad)
