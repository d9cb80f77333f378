"""Forces are continuous: as atoms come and go, as the count of neighbours passes one, through lines and planes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from _pytest.mark import ParameterSet
from torch import Tensor
from torch_geometric.data import Data

import geoeq.models
from geoeq.graph import build_graph
from geoeq.models import (
    EGNN,
    PONITA,
    ZBL,
    Canonicalization,
    EveryLayerScalar,
    FAENet,
    FrameAveraging,
    GraphScalar,
    Model,
    NequIP,
    NodeScalar,
    PCACanonicalizer,
    SE3Transformer,
    TinvNN,
    WithPriors,
)
from geoeq.symmetry import report

SMOOTH = ["smoothness at the cutoff", "smooth passages"]

#: The cases that take more than two seconds.
LONG = {"ESCN", "Equiformer", "EquiformerV2", "IterativeSE3Transformer", "NequIP", "PONITA", "SE3Transformer"}
LONG |= {"TensorFieldNetwork", "EGNN length plus one", "SE3Transformer with self-interactions per edge", "TinvNN"}


def cases(makers: dict[str, Callable[[], Model]]) -> list[ParameterSet]:
    return [pytest.param(make, id=name, marks=[pytest.mark.slow] * (name in LONG)) for name, make in makers.items()]


def strong(make: Callable[[], Model]) -> Model:
    """No branch is switched off."""
    torch.manual_seed(0)
    model = make().double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def egnn(**changes: object) -> EGNN:
    return EGNN([GraphScalar("energy")], **({"width": 8, "layers": 2, "cutoff": 4.0} | changes))


def faenet(**changes: object) -> FAENet:
    return FAENet([EveryLayerScalar("energy")], 8, 8, 2, num_basis=8, cutoff=4.0, **changes)


def se3_transformer(**changes: object) -> SE3Transformer:
    sizes = {"attention_heads": 2, "channels_div": 1, "cutoff": 4.0, "num_basis": 4, "hidden": 6}
    return SE3Transformer([GraphScalar("energy")], 4, 1, 1, **sizes, **changes)


def charged() -> EGNN:
    return EGNN([GraphScalar("energy"), NodeScalar("charges", conserve=True)], width=8, layers=1, cutoff=4.0)


NETWORKS = {name: getattr(geoeq.models, name).example for name in (*geoeq.models.NETWORKS, "GNN", "Transformer")}

NEQUIP = {"irreps": "4x0e+2x1e+4x1o+2x2e", "layers": 2, "hidden": (8,)}

#: Options and wrappers with thresholds of their own.
OPTIONS = {
    "EGNN length": lambda: egnn(normalize="length"),
    "EGNN length plus one": lambda: egnn(normalize="length_plus_one", attention=True, tanh=True),
    "EGNN without a cutoff": lambda: egnn(cutoff=None),
    "EGNN of a Bessel basis": lambda: egnn(edge_inputs=["bessel"]),
    "NequIP with the envelope of X-PLOR": lambda: NequIP([GraphScalar("energy")], **NEQUIP, cutoff=4.0, onset=3.0),
    "NequIP on a complete graph": lambda: NequIP([GraphScalar("energy")], **NEQUIP, cutoff=None, basis_cutoff=4.0),
    "SE3Transformer with self-interactions per edge": lambda: se3_transformer(self_per_edge=True),
    "FAENet with a norm over the graph": lambda: faenet(norm="graph"),
    "weighted frames": lambda: FrameAveraging(faenet(), frames="weighted"),
    "signed principal axes": lambda: Canonicalization(faenet(), PCACanonicalizer()),
    "TinvNN": lambda: TinvNN(faenet(), signs="moments"),
    "ZBL": lambda: WithPriors(egnn(), [ZBL()]),
    "conserved charges": charged,
}


@pytest.mark.parametrize("make", cases(NETWORKS | OPTIONS))
def test_outputs_and_forces_are_continuous(make: Callable[[], Model]) -> None:
    found = report(strong(make), checks=SMOOTH)
    assert found.passed, str(found)


@pytest.mark.parametrize("options", [{"norm": "norm"}, {"activation": "relu"}], ids=str)
def test_published_kinks_are_found(options: dict[str, str]) -> None:
    assert report(strong(lambda: se3_transformer(**options)), checks=SMOOTH).failed


def tetrahedron(radius: float) -> Data:
    corners = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
    return Data(z=torch.full((4,), 29), pos=(corners / 8**0.5 * radius).requires_grad_())


def force(model: Model, radius: float) -> Tensor:
    data = tetrahedron(radius)
    (gradient,) = torch.autograd.grad(model(data)["energy"].sum(), data.pos)
    return gradient


@pytest.mark.parametrize(("count", "jumps"), [("smooth", False), ("clamped", True)])
def test_the_force_where_envelopes_sum_to_one(count: str, jumps: bool) -> None:
    """A tetrahedron of copper atoms at that distance: over 2e-7 Å the force changed by a factor of five."""
    model = strong(lambda: egnn(width=16, layers=3, cutoff=5.0, count=count))
    low, high = 1.0, 5.0  # 3 f(low) > 1 > 3 f(high)
    for _ in range(60):
        middle = (low + high) / 2
        inside = 3 * model.layers[0].envelope(torch.tensor([middle], dtype=torch.float64)) > 1
        low, high = (middle, high) if inside else (low, middle)
    before, after = force(model, low - 1e-7), force(model, low + 1e-7)
    assert bool((after - before).norm() > 1e-3 * before.norm()) == jumps


@pytest.mark.parametrize("number", [0, 1, 3, 12])
def test_the_count_is_one_without_neighbours_and_their_number_with_many(number: int) -> None:
    """The displacement of an atom with so many close neighbours, times the count, is that without a cutoff."""
    smooth, sums = (strong(lambda c=c: egnn(layers=1, cutoff=c)).layers[0] for c in (4.0, None))
    pos = torch.nn.functional.normalize(torch.randn(number + 1, 3, dtype=torch.float64)) * 1e-3
    edges = torch.stack([torch.arange(1, number + 1), torch.zeros(number, dtype=torch.int64)])
    graph, x = build_graph(Data(pos=pos, edge_index=edges)), torch.ones(number + 1, 11, dtype=torch.float64)
    moved, mean = ((layer(x, graph) - x)[0, 8:] for layer in (smooth, sums))
    torch.testing.assert_close(moved * (1 + number**4) ** 0.25, mean * max(number, 1), rtol=1e-9, atol=1e-15)


def test_perpendicular_invariants_of_ponita_have_a_kink_only_along_an_orientation() -> None:
    arguments = PONITA.example().config()["init_args"]
    settings = {key: value for key, value in arguments.items() if key not in ("heads", "invariants")}
    model = strong(lambda: PONITA([GraphScalar("energy")], **settings, invariants="perpendicular"))
    assert report(model, checks=SMOOTH[:1]).passed
