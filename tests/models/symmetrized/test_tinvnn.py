"""Networks that know of no symmetry give invariants once their coordinates are made of distances."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from torch_geometric.data import Batch, Data

from geoeq.errors import CoincidentAtomsError, EmptyGraphError, FieldError, InputError
from geoeq.models import (
    Canonicalization,
    DecodedVector,
    EveryLayerScalar,
    FAENet,
    FrameAveraging,
    Model,
    PCACanonicalizer,
    TinvNN,
    from_config,
)
from geoeq.models.checkpoint import load_checkpoint, save_checkpoint
from geoeq.symmetry import assert_equivariant, equivariance_errors, random_batch, report

SIGNS = ("average", "moments")


class PointNet(nn.Module):
    """A network of each atom's coordinates as they are: nothing of it is symmetric."""

    def __init__(self, width=16):
        super().__init__()
        self.element = nn.Embedding(120, width)
        self.inner = nn.Sequential(nn.Linear(width + 3, 32), nn.SiLU(), nn.Linear(32, width))
        self.energy, self.charge = nn.Linear(2 * width, 1), nn.Linear(width, 1)

    def forward(self, data):
        h = self.inner(torch.cat([self.element(data.z), data.pos], dim=-1)).sin()
        pooled = h.new_zeros(len(data.ptr) - 1, h.shape[1]).index_add(0, data.batch, h)
        energy = self.energy(torch.cat([pooled, pooled.square()], dim=-1)).squeeze(-1)
        return {"energy": energy, "charges": self.charge(h + pooled[data.batch]).squeeze(-1)}


def wrapped(signs="average", **options):
    torch.manual_seed(0)
    return TinvNN(PointNet().double(), signs, **options)


def faenet(*heads):
    return FAENet(list(heads), width=8, filters=8, layers=1, num_basis=8, cutoff=4.0)


def single(pos, z=None):
    pos = torch.as_tensor(pos, dtype=torch.float64)
    z = torch.ones(len(pos), dtype=torch.int64) if z is None else torch.tensor(z)
    return Batch.from_data_list([Data(pos=pos, z=z)])


#: twisted, as hydrogen peroxide: an axis of order two, and no mirror plane.
TWISTED = [[0, 0, -1], [0, 0.72, 0], [0, -0.72, 0], [0.83, 0.88, 0.5], [-0.83, -0.88, 0.5]]
#: a structure with inversion alone.
INVERTED = [[1, 0.2, 0.1], [-1, -0.2, -0.1], [0.3, 2.2, 0.4], [-0.3, -2.2, -0.4], [0.5, 0.6, 0.7], [-0.5, -0.6, -0.7]]
TETRAHEDRON = [[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]


def test_the_network_inside_has_no_symmetry():
    errors = equivariance_errors(wrapped().model, symmetries=("rotation", "reflection", "translation"))
    assert min(errors.values()) > 1e-2, errors


@pytest.mark.parametrize("landmarks", [None, 4, 16])
@pytest.mark.parametrize("signs", SIGNS)
def test_outputs_are_invariant(signs, landmarks):
    """random_batch has a structure of one atom, one of two, and velocities; the last is larger than the landmarks."""
    assert_equivariant(wrapped(signs, landmarks=landmarks), random_batch((5, 1, 9, 2, 30)))
    single_precision = wrapped(signs, landmarks=landmarks).float()
    assert_equivariant(single_precision, random_batch((5, 1, 9, 2, 30), dtype=torch.float32))


@pytest.mark.parametrize("signs", SIGNS)
@pytest.mark.parametrize(
    ("pos", "z", "copies"),
    [
        (TWISTED, [16, 8, 8, 1, 1], {"average": 8, "moments": 4}),
        (INVERTED, [6, 6, 8, 8, 1, 1], {"average": 8, "moments": 8}),
        (INVERTED, [6, 6, 8, 7, 1, 1], {"average": 8, "moments": 8}),
        ([[0, 0, 0], [0.76, 0.59, 0], [-0.76, 0.59, 0]], [8, 1, 1], {"average": 8, "moments": 4}),
        ([[0, 0, -1.2], [0, 0, 0], [0, 0, 1.2]], [8, 6, 8], {"average": 8, "moments": 8}),
    ],
)
def test_symmetric_structures_are_invariant_too(pos, z, copies, signs):
    """With equal mean cubes; the elements may break the symmetry of the positions."""
    model, batch = wrapped(signs), single(pos, z)
    frames = model.frames_of(batch)
    assert len(frames.graph) == copies[signs]
    assert float(frames.gap) > 0.05
    assert_equivariant(model, batch, samples=10)


def test_third_moments_leave_one_copy_of_what_has_no_symmetry():
    batch = random_batch((9,))
    assert len(wrapped("moments").frames_of(batch).graph) == 1
    assert len(wrapped("average").frames_of(batch).graph) == 8


def test_outputs_are_those_from_the_frames_of_principal_axes():
    batch = random_batch((5, 1, 9, 2, 30))
    batch.vel = None
    model = wrapped()
    for name, value in FrameAveraging(model.model)(batch).items():
        torch.testing.assert_close(model(batch)[name], value, rtol=0, atol=1e-12)
    model.signs = "moments"
    for name, value in Canonicalization(model.model, PCACanonicalizer())(batch).items():
        torch.testing.assert_close(model(batch)[name], value, rtol=0, atol=1e-12)


def test_equal_spreads_are_reported_and_are_what_breaks_invariance():
    model, batch = wrapped(), single(TETRAHEDRON)
    assert model.scaling(batch).gap < 1e-10
    assert model.frames_of(batch).gap < 1e-10
    assert model(batch)["energy"].isfinite().all()
    stretched = single((torch.tensor(TETRAHEDRON) * torch.tensor([3.0, 2.0, 1.0])).tolist())
    assert model.scaling(stretched).gap > 0.3
    assert_equivariant(model, stretched)


@pytest.mark.parametrize("signs", SIGNS)
def test_forces_are_derivatives(signs):
    model, batch = wrapped(signs), random_batch((5, 4, 20))

    def energy(pos):
        moved = batch.clone()
        moved.pos = pos
        return model(moved)["energy"].sum()

    pos = batch.pos.clone().requires_grad_()
    assert torch.autograd.gradcheck(energy, (pos,))

    def forces(data):
        moved = data.clone()
        moved.pos = data.pos.clone().requires_grad_()
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(model(moved)["energy"].sum(), moved.pos)
        return {"forces": -slope}

    assert_equivariant(forces, batch)


@pytest.mark.parametrize("signs", SIGNS)
@pytest.mark.parametrize(
    "pos",
    [[[0.3, 0.2, 0.1]], [[0, 0, 0], [0, 0, 1]], [[0, 0, -1], [0, 0, 0], [0, 0, 1.3]], TWISTED, TETRAHEDRON],
    ids=["one", "two", "line", "twisted", "tetrahedron"],
)
def test_derivatives_are_finite_for_every_shape(pos, signs):
    batch = single(pos)
    batch.pos.requires_grad_()
    (slope,) = torch.autograd.grad(wrapped(signs)(batch)["energy"].sum(), batch.pos, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.square().sum(), batch.pos)
    assert slope.isfinite().all()
    assert curvature.isfinite().all()


def test_what_the_network_sees():
    """Coordinates about the origin, no velocities; given edges, features and charges as they are."""

    class Seen(nn.Module):
        def forward(self, data):
            self.data = data
            return {}

    inner, batch = Seen(), random_batch((9,))
    batch.edge_index = torch.tensor([[0, 1, 7], [1, 2, 8]])
    TinvNN(inner, "moments")(batch)
    seen = inner.data
    assert "vel" not in seen
    assert "vel" in batch
    assert torch.equal(seen.x, batch.x)
    assert torch.equal(seen.edge_index, batch.edge_index)
    assert torch.equal(seen.z, batch.z)
    j, i = batch.edge_index
    torch.testing.assert_close((seen.pos[j] - seen.pos[i]).norm(dim=1), (batch.pos[j] - batch.pos[i]).norm(dim=1))
    assert seen.pos.mean(0).abs().max() < 1e-12


def test_the_check_of_models_fails_where_principal_axes_are_chance_and_nowhere_else():
    torch.manual_seed(0)
    inner, data = faenet(EveryLayerScalar("energy")), random_batch((9, 6, 7))
    data.vel = None
    symmetries = ("rotation", "reflection", "translation", "permutation", "batch invariance")
    special = ("edges along the axes", "nearly degenerate frames")
    for model in (TinvNN(inner), FrameAveraging(inner)):
        found = report(model, data, checks=[*symmetries, *special])
        status = {result.name: result.status for result in found.results}
        assert [status[name] for name in symmetries] == 5 * ["passed"]
        assert [status[name] for name in special] == 2 * ["failed"]


def test_a_checkpoint_has_the_network_inside(tmp_path):
    torch.manual_seed(0)
    model, data = TinvNN(faenet(EveryLayerScalar("energy")), "moments", 8), random_batch(dtype=torch.float32)
    data.energy = torch.randn(4)
    model.fit_heads(data)
    save_checkpoint(model, tmp_path)
    again, _ = load_checkpoint(tmp_path)
    assert isinstance(again, TinvNN)
    assert (again.signs, again.landmarks, again.elements) == ("moments", 8, model.elements)
    assert torch.equal(again(data)["energy"], model.eval()(data)["energy"])
    assert from_config(json.loads(json.dumps(model.config())), Model).config() == model.config()
    assert TinvNN.example()(random_batch(dtype=torch.float32))["energy"].shape == (4,)


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(FieldError, match=r"only invariants, and 'forces' rotates .*FrameAveraging"):
        TinvNN(faenet(EveryLayerScalar("energy"), DecodedVector("forces")))
    with pytest.raises(FieldError, match="'dipole' rotates"):
        TinvNN(lambda data: {"dipole": data.pos[data.ptr[:-1]]})(random_batch())
    with pytest.raises(InputError, match=r"Graph 0 is periodic.*set pbc to False"):
        wrapped()(random_batch(periodic=True))
    batch = random_batch(periodic=True)
    batch.pbc[:] = False
    assert wrapped()(batch)["energy"].isfinite().all()
    batch.pbc[2, 1] = True
    with pytest.raises(InputError, match="Graph 2 is periodic"):
        wrapped()(batch)
    with pytest.raises(InputError, match=r"No treatment of signs is called 'moment'. Did you mean 'moments'"):
        wrapped("moment")
    with pytest.raises(InputError, match=r"TinvNN: landmarks is \d; it must be 4 or more"):
        wrapped(landmarks=3)
    with pytest.raises(EmptyGraphError):
        wrapped()(Data(pos=torch.zeros(0, 3), z=torch.zeros(0, dtype=torch.int64)))
    with pytest.raises(CoincidentAtomsError):
        wrapped()(single([[0, 0, 0], [0, 0, 0]]))
    with pytest.raises(InputError, match="TinvNN has no node features"):
        wrapped().encode(None, None)
