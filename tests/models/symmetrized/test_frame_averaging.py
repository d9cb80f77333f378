"""Networks that know of no symmetry have that of the group once they are wrapped."""

from __future__ import annotations

import copy
import json
from typing import get_args

import pytest
import torch
from e3nn import o3
from torch import nn
from torch_geometric.data import Batch, Data

from geoeq.errors import EmptyGraphError, FieldError, InputError, RecipeError
from geoeq.geometry.frames import FrameGroup, inputs_that_turn
from geoeq.geometry.rotations import irreps_to_matrix, random_orthogonals
from geoeq.models import EGNN, EveryLayerScalar, FAENet, FrameAveraging, GraphScalar, Model, NodeVector, from_config
from geoeq.models.checkpoint import load_checkpoint, save_checkpoint
from geoeq.models.symmetrized import framed as module
from geoeq.symmetry import assert_equivariant, equivariance_errors, random_batch

GROUPS = get_args(FrameGroup)
WIDTHS = {"energy": 1, "dipole": 3, "stress": 6, "forces": 3, "charges": 1, "positions": 3, "features": 5}
GRAPH_LEVEL = ("energy", "dipole", "stress")


class PointNet(nn.Module):
    """A network of each atom's coordinates as they are, and of the cell: nothing of it is symmetric."""

    def __init__(self, width=16):
        super().__init__()
        self.element = nn.Embedding(120, width)
        self.inner = nn.Sequential(nn.Linear(width + 15, 32), nn.SiLU(), nn.Linear(32, width), nn.SiLU())
        nn.init.normal_(self.inner[0].weight)  # far from linear
        nn.init.normal_(self.inner[2].weight, std=0.3)
        self.outputs = nn.ModuleDict({name: nn.Linear(2 * width, count) for name, count in WIDTHS.items()})

    def mix(self, h, data):
        return h

    def forward(self, data):
        num_graphs, batch = len(data.ptr) - 1, data.batch
        vel = data.vel if "vel" in data else torch.zeros_like(data.pos)
        cell = data.cell if "cell" in data else data.pos.new_zeros(num_graphs, 3, 3)
        given = torch.cat([self.element(data.z), data.pos, vel, cell.flatten(1)[batch]], dim=-1)
        h = self.mix(self.inner(given), data).sin()
        pooled = h.new_zeros(num_graphs, h.shape[1]).index_add(0, batch, h)
        found = {}
        for name, last in self.outputs.items():
            both = torch.cat([pooled, pooled.square()] if name in GRAPH_LEVEL else [h, pooled[batch]], dim=-1)
            value = last(both)
            found[name] = value.squeeze(-1) if name in ("energy", "charges") else value
        return found


class Transformer(PointNet):
    """The same, with attention among the atoms of a structure."""

    def __init__(self, width=16):
        super().__init__(width)
        self.attention = nn.Linear(width, 3 * width)

    def mix(self, h, data):
        q, k, v = self.attention(h).chunk(3, dim=-1)
        score = (q @ k.T / 4).masked_fill(data.batch[:, None] != data.batch, float("-inf"))
        return h + score.softmax(-1) @ v


NETWORKS = {"PointNet": PointNet, "Transformer": Transformer}


def wrapped(group="E(3)", frames="full", network=PointNet, **options):
    torch.manual_seed(0)
    return FrameAveraging(network().double(), group, frames, **options)


def single(pos, z=None, **others):
    pos = torch.as_tensor(pos, dtype=torch.float64)
    return Batch.from_data_list(
        [Data(pos=pos, z=torch.ones(len(pos), dtype=torch.int64) if z is None else z, **others)]
    )


TETRAHEDRON = [[0, 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]
HEXAGON = [
    [
        round(torch.cos(torch.tensor(k * torch.pi / 3, dtype=torch.float64)).item(), 15),
        round(torch.sin(torch.tensor(k * torch.pi / 3, dtype=torch.float64)).item(), 15),
        0.0,
    ]
    for k in range(6)
]
SHAPES = {
    "one atom": [[0.3, 0.2, 0.1]],
    "two atoms": [[0, 0, 0], [0.3, 1.2, -0.4]],
    "linear": [[0, 0, -1.1], [0, 0, 0], [0, 0, 1.3]],
    "planar": [[0, 0, 0], [0.76, 0.59, 0], [-0.9, 0.5, 0]],
}


def test_the_networks_inside_have_no_symmetry():
    for network in NETWORKS.values():
        errors = equivariance_errors(network().double(), symmetries=("rotation", "reflection", "translation"))
        assert min(errors.values()) > 1e-3, errors


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("frames", ["full", "weighted"])
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("periodic", [False, True])
def test_a_wrapped_network_has_the_symmetry_of_the_group(group, frames, network, periodic):
    """Every kind of output; random_batch has structures of one and of two atoms."""
    assert_equivariant(wrapped(group, frames, NETWORKS[network]), random_batch(periodic=periodic))


@pytest.mark.parametrize("frames", ["full", "weighted"])
@pytest.mark.parametrize("axis", ["x", "y", "z"])
@pytest.mark.parametrize("group", ["SE(2)", "E(2)"])
def test_a_slab_may_turn_about_its_axis_alone(group, axis, frames):
    model = wrapped(group, frames, axis=axis)
    batch = random_batch(periodic=True)
    batch.pbc[:, "xyz".index(axis)] = False
    assert_equivariant(model, batch)
    model.group, model.axis = "E(3)", None
    turned = equivariance_errors(FrameSpace(model, group, axis), batch, symmetries=("rotation",))
    assert turned["rotation", "energy"] > 1e-3  # up and down are told apart


class FrameSpace:
    """The wrapper with its own group, under another name, so that it is turned in all ways."""

    def __init__(self, model, group, axis):
        self.model, self.own = model, (group, axis)

    def __call__(self, data):
        self.model.group, self.model.axis = self.own
        return self.model(data)


@pytest.mark.parametrize("pbc", [(True, True, True), (True, True, False), (False, True, False)])
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("frames", ["full", "weighted"])
def test_any_periodic_image_of_an_atom_may_be_listed(group, frames, pbc):
    """As published, frames turn when an atom is listed elsewhere, and the energy changes."""
    data = random_batch((5, 3), periodic=True)
    data.pbc[:] = torch.tensor(pbc)
    moved = data.clone()
    moved.pos[1] += 2 * data.cell[0, 1]
    moved.pos[6] -= data.cell[1, 1]
    energies = {}
    for images in ("any", "listed"):
        torch.manual_seed(0)
        network = FAENet([EveryLayerScalar("energy")], 8, 8, 1, num_basis=8, cutoff=4.0)
        model = FrameAveraging(network, group, frames, images=images).double()
        energies[images] = [model(structures)["energy"] for structures in (data, moved)]
    torch.testing.assert_close(*energies["any"], rtol=1e-9, atol=1e-9)
    if frames == "full":  # weighted frames may be those of cell vectors alone
        assert (energies["listed"][0] - energies["listed"][1]).abs().min() > 1e-6


def test_close_atoms_in_a_large_cell_have_the_frames_of_a_molecule():
    molecule = random_batch((5,))
    crystal = random_batch((5,), periodic=True)
    crystal.pos, crystal.cell = molecule.pos, 1e4 * torch.eye(3, dtype=torch.float64)[None]
    for images, tolerance in (("any", 1e-5), ("listed", 0.0)):
        found = inputs_that_turn(crystal, "E(3)", images)[0][:5]
        assert (found - inputs_that_turn(molecule, "E(3)")[0][:5]).abs().max() <= tolerance


def test_a_group_without_translations_sees_the_origin():
    errors = equivariance_errors(wrapped("O(3)"), symmetries=("translation",))
    assert errors["translation", "energy"] > 1e-3


def test_a_group_without_reflections_tells_mirror_images_apart():
    errors = equivariance_errors(wrapped("SE(3)"), random_batch((6, 8)), symmetries=("reflection",))
    assert errors["reflection", "energy"] > 1e-3


@pytest.mark.parametrize("frames", ["full", "weighted"])
@pytest.mark.parametrize("group", ["SE(3)", "E(3)", "E(2)"])
@pytest.mark.parametrize("shape", SHAPES)
def test_small_and_flat_structures_are_right(shape, group, frames):
    assert_equivariant(wrapped(group, frames), single(SHAPES[shape]), tolerance=1e-9)


@pytest.mark.parametrize("shape", [TETRAHEDRON, HEXAGON])
def test_symmetric_molecules_need_weighted_frames(shape):
    """Of methane and benzene principal axes are not unique: "full" says so, and "weighted" is right."""
    batch = single(shape)
    assert_equivariant(wrapped("E(3)", "weighted"), batch)
    full = wrapped("E(3)", "full")
    assert float(full.frames_of(batch).gap) < 1e-12
    assert equivariance_errors(full, batch, symmetries=("rotation",))["rotation", "stress"] > 1e-3


def test_a_cubic_crystal_is_right_with_weighted_frames():
    cell = 3.0 * torch.eye(3, dtype=torch.float64).unsqueeze(0)
    batch = single([[0, 0, 0]], cell=cell, pbc=torch.ones(1, 3, dtype=torch.bool))
    assert_equivariant(wrapped("E(3)", "weighted"), batch)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_batch_is_one_by_one_and_single_precision_is_close(dtype):
    for frames in ("full", "weighted"):
        assert_equivariant(wrapped(frames=frames).to(dtype), random_batch((5, 1, 9, 2, 7), dtype=dtype))


def test_the_average_over_all_frames_drawn_is_the_full_one():
    full, drawn = wrapped(), wrapped(frames="stochastic")
    batch = random_batch((5, 1, 9, 2))
    frames = full.frames_of(batch)
    numbers = torch.arange(4) * 8

    class Choice(FrameAveraging):
        choice = 0

        def frames_of(self, data):
            return frames.pick(numbers + self.choice)

    chosen = Choice(drawn.model)
    samples = []
    for choice in range(8):
        chosen.choice = choice
        samples.append(chosen(batch))
    for name, value in full(batch).items():
        torch.testing.assert_close(torch.stack([sample[name] for sample in samples]).mean(0), value)
    energies = torch.stack([sample["energy"] for sample in samples])
    spread = energies.std(0, correction=0)
    found = torch.stack([drawn(batch)["energy"] for _ in range(800)])
    assert (found.mean(0) - energies.mean(0)).abs().le(5 * spread / 800**0.5 + 1e-12).all()
    torch.testing.assert_close(found.std(0), spread, rtol=0.15, atol=1e-12)


def test_a_seed_fixes_what_is_drawn_in_evaluation():
    model, batch = wrapped(frames="stochastic", seed=3), random_batch((8, 9))

    def values():
        with torch.no_grad():
            return len({float(model(batch)["energy"][0]) for _ in range(20)})

    model.train()
    assert values() > 1
    model.eval()
    assert values() == 1
    model.seed = None
    assert values() > 1


def test_frames_of_training_need_not_be_those_of_evaluation():
    model, batch = wrapped(frames="stochastic", evaluation="full"), random_batch((8, 9))
    model.train()
    with torch.no_grad():
        assert len({float(model(batch)["energy"][0]) for _ in range(20)}) > 1
    assert_equivariant(model.eval(), batch)
    torch.testing.assert_close(model(batch)["energy"], wrapped()(batch)["energy"])
    with pytest.raises(InputError, match="kind of frames"):
        wrapped(evaluation="all")


def ellipsoid(t):
    """Atoms whose two longest moments cross at t = 0, none of them by symmetry."""
    pos = torch.randn(7, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    pos = pos - pos.mean(0)
    values, vectors = torch.linalg.eigh(pos.T @ pos / 7)
    round_ = pos @ vectors @ torch.diag(values**-0.5) @ vectors.T  # all moments 1
    tilt = torch.tensor([[1.0 + t, 0.3 * t, 0], [0.3 * t, 1.0 - t, 0], [0, 0, 0.6]], dtype=torch.float64)
    return round_ @ tilt


def change(frames, step):
    """How much the energy changes from one side of the crossing to the other."""
    model = wrapped(frames=frames, network=Transformer)
    with torch.no_grad():
        before, after = (float(model(single(ellipsoid(t)))["energy"]) for t in (-step, step))
    return abs(after - before)


def test_weighted_frames_are_continuous_where_moments_cross():
    """The change over a step falls with the step; that of all signs of principal axes does not."""
    changes = {step: change("weighted", step) for step in (1e-3, 1e-5, 1e-7)}
    assert changes[1e-3] < 1e-2
    assert changes[1e-5] == pytest.approx(changes[1e-3] / 100, rel=0.05)
    assert changes[1e-7] == pytest.approx(changes[1e-3] / 10000, rel=0.05)
    assert change("full", 1e-7) > 1e-2
    assert change("full", 1e-7) == pytest.approx(change("full", 1e-9), rel=1e-3)


@pytest.mark.parametrize("start", [TETRAHEDRON, HEXAGON, [[0, 0, -1.1], [0, 0, 0], [0, 0, 1.3]]])
@pytest.mark.parametrize("output", ["energy", "forces", "stress"])
def test_weighted_frames_are_continuous_at_symmetric_shapes(start, output):
    """From any direction the same limit, which is what the symmetric structure itself gives; linear ones too."""
    model = wrapped(frames="weighted")
    pos = torch.as_tensor(start, dtype=torch.float64)
    turn = random_orthogonals(1, torch.Generator().manual_seed(1), torch.float64)[0]
    pos = pos @ turn.T
    aside = torch.randn(4, *pos.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        there = model(single(pos))[output]
        far, near = (
            max(float((model(single(pos + step * way))[output] - there).abs().max()) for way in aside)
            for step in (1e-4, 1e-7)
        )
    assert near < 1e-5
    assert near < 1e-2 * far


def probe(model, batch):
    def run(pos):
        moved = batch.clone()
        moved.pos = pos
        return sum((v * torch.linspace(0.5, 1, v.numel()).reshape(v.shape)).sum() for v in model(moved).values())

    return run


@pytest.mark.parametrize("frames", ["full", "weighted"])
@pytest.mark.parametrize("group", ["SO(3)", "E(3)", "E(2)"])
def test_derivatives_go_through_the_frames(group, frames):
    batch = random_batch((5, 4))
    pos = batch.pos.clone().requires_grad_()
    assert torch.autograd.gradcheck(probe(wrapped(group, frames), batch), (pos,))
    assert torch.autograd.gradgradcheck(probe(wrapped(group, frames), batch), (pos,))


@pytest.mark.parametrize("frames", ["full", "weighted"])
@pytest.mark.parametrize("shape", [*SHAPES.values(), TETRAHEDRON, HEXAGON])
def test_derivatives_are_finite_for_every_shape(shape, frames):
    batch = single(shape)
    pos = batch.pos.clone().requires_grad_()
    (slope,) = torch.autograd.grad(probe(wrapped(frames=frames), batch)(pos), pos, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.square().sum(), pos)
    assert slope.isfinite().all()
    assert curvature.isfinite().all()
    if frames == "weighted":
        assert slope.abs().max() < 100


def test_derivatives_of_an_invariant_are_forces_that_turn():
    model = wrapped(frames="weighted")

    def forces(data):
        pos = data.pos.clone().requires_grad_()
        moved = data.clone()
        moved.pos = pos
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(model(moved)["energy"].sum(), pos)
        return {"forces": -slope}

    assert_equivariant(forces, random_batch((5, 9, 6)))


def test_edges_and_other_attributes_come_along():
    """Of every copy each atom sees what it saw: an invariant network is unchanged, on given edges too."""
    torch.manual_seed(0)
    inner = EGNN([GraphScalar("energy")], width=8, layers=2, cutoff=3.0).double()
    for periodic in (False, True):
        batch = random_batch(periodic=periodic)
        expected = inner(batch)["energy"]
        for frames in ("full", "weighted", "stochastic"):
            torch.testing.assert_close(FrameAveraging(inner, frames=frames)(batch)["energy"], expected)
    given = EGNN([GraphScalar("energy")], width=8, layers=2, cutoff=None).double()
    batch = random_batch((5, 4, 6))
    pairs = [
        (j, i) for i in range(15) for j in range(15) if i != j and batch.batch[i] == batch.batch[j] and (i + j) % 3
    ]
    batch.edge_index = torch.tensor(pairs).T[:, torch.randperm(len(pairs))]
    torch.testing.assert_close(FrameAveraging(given)(batch)["energy"], given(batch)["energy"])


class Seen(nn.Module):
    def forward(self, data):
        self.data = data
        return {}


def test_what_the_network_sees():
    inner, batch = Seen(), random_batch((5, 1, 9, 2))
    batch.forces, batch.energy, batch.name = batch.vel.clone(), torch.arange(4.0), "four"
    FrameAveraging(inner)(batch)
    seen = inner.data
    assert (seen.num_graphs, seen.num_nodes) == (32, 8 * 17)
    assert "forces" not in seen
    assert seen.energy.tolist() == [0.0] * 8 + [1.0] * 8 + [2.0] * 8 + [3.0] * 8
    assert torch.equal(seen.z[:10], batch.z[:5].repeat(2))
    means = torch.zeros(32, 3, dtype=torch.float64).index_add(0, seen.batch, seen.pos)
    assert means.abs().max() < 1e-12
    assert seen.name == "four"


def small():
    torch.manual_seed(0)
    return FrameAveraging(EGNN([GraphScalar("energy"), NodeVector("forces")], width=8, layers=1), "SE(3)", "weighted")


def test_a_checkpoint_has_the_network_inside(tmp_path):
    model, data = small(), random_batch((5, 1, 9), dtype=torch.float32)
    data.energy = torch.randn(3)
    model.fit_heads(data)
    assert model.elements == tuple(data.z.unique().tolist())
    save_checkpoint(model, tmp_path)
    again, _ = load_checkpoint(tmp_path)
    assert isinstance(again, FrameAveraging)
    assert (again.group, again.frames, again.elements) == ("SE(3)", "weighted", model.elements)
    assert set(again.fields) == {"energy", "forces"}
    assert again.config() == model.config()
    for name, value in model(data).items():
        assert torch.equal(again(data)[name], value)
    assert json.loads((tmp_path / "model.json").read_text())["model"]["class_path"] == "geoeq.models.FrameAveraging"


def test_config_and_copies():
    model, data = small(), random_batch((5, 3), dtype=torch.float32)
    again = from_config(json.loads(json.dumps(model.config())), Model)
    assert again.config() == model.config()
    twin = copy.deepcopy(model)
    assert torch.equal(twin(data)["energy"], model(data)["energy"])
    with pytest.raises(RecipeError, match=r"FrameAveraging.model is a PointNet"):
        wrapped().config()
    assert wrapped().fields == {}
    assert wrapped().cutoff is None
    assert FrameAveraging.example()(random_batch((3,), dtype=torch.float32))["energy"].shape == (1,)


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(InputError, match=r"No kind of frames is called 'ful'. Did you mean 'full'"):
        wrapped(frames="ful")
    with pytest.raises(InputError, match=r"No group is called 'E\(4\)'"):
        wrapped("E(4)")
    with pytest.raises(InputError, match=r"axis is 'z', but E\(3\)"):
        wrapped("E(3)", axis="z")
    with pytest.raises(InputError, match=r"No axis is called 'w'"):
        wrapped("E(2)", axis="w")
    with pytest.raises(EmptyGraphError):
        wrapped()(Data(pos=torch.zeros(0, 3), z=torch.zeros(0, dtype=torch.int64)))
    with pytest.raises(FieldError, match="'nonsense'"):
        FrameAveraging(lambda data: {"nonsense": data.pos})(single([[0, 0, 0]]))
    with pytest.raises(InputError, match="no node features"):
        small().encode(None, None)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("irreps", ["0o", "1e", "2x1o+0e", "0e+2e", "2o", "3o+3e"])
def test_irreps_of_every_parity_are_turned_back(irreps, monkeypatch):
    """A name of these irreps: f(g x) == D(g) f(x) with e3nn's own matrices, inversion among them."""
    known = module.field("stress")
    monkeypatch.setattr(module, "field", lambda name: type(known)("graph", irreps, "1", False, ""))
    torch.manual_seed(0)
    dim = o3.Irreps(irreps).dim
    last = nn.Linear(9, dim)

    def inner(data):
        powers = torch.cat([data.pos, data.pos**2, data.pos[:, [1, 2, 0]] * data.pos.sin()], dim=-1)
        return {"stress": last(powers.new_zeros(len(data.ptr) - 1, 9).index_add(0, data.batch, powers))}

    pos = random_batch((5,)).pos
    for frames in ("full", "weighted"):
        model = FrameAveraging(inner, frames=frames)
        base = model(single(pos))["stress"]
        for turn in (*o3.rand_matrix(3), -torch.eye(3), -o3.rand_matrix(1)[0]):
            expected = base @ o3.Irreps(irreps).D_from_matrix(turn).T
            torch.testing.assert_close(model(single(pos @ turn.T))["stress"], expected, rtol=0, atol=1e-9)
    assert base.abs().max() > 1e-4


class MatrixStress(PointNet):
    """The same numbers, the stress as matrices."""

    def forward(self, data):
        found = super().forward(data)
        return {**found, "stress": irreps_to_matrix(found["stress"])}


def test_a_stress_may_be_a_matrix():
    torch.manual_seed(0)
    inner = MatrixStress().double()
    plain = PointNet().double()
    plain.load_state_dict(inner.state_dict())
    data = random_batch(periodic=True)
    found = FrameAveraging(inner)(data)["stress"]
    torch.testing.assert_close(found, irreps_to_matrix(FrameAveraging(plain)(data)["stress"]))
    assert_equivariant(FrameAveraging(inner))
