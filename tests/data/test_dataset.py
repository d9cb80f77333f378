"""Batches from flat arrays are what PyG makes of single graphs, and can be taken apart again."""

from __future__ import annotations

import copy
import pickle

import ase
import ase.io
import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data

from geoeq.data import edges, load
from geoeq.data.dataset import Dataset
from geoeq.data.store import INDEX
from geoeq.errors import CoincidentAtomsError, DataError, InputError, NonFiniteError


@pytest.fixture
def qm7() -> Dataset:
    return load("qm7", sample=True)


@pytest.fixture
def periodic(tmp_path) -> Dataset:
    """Crystals and a molecule in one file: cells, partial pbc, edges through the boundary."""
    random = np.random.default_rng(0)
    frames = [
        ase.Atoms("NaCl", [[0, 0, 0], [2.8, 0.1, 0]], cell=np.eye(3) * 5.6, pbc=True),
        ase.Atoms("Cu", [[0, 0, 0]], cell=[[0, 1.8, 1.8], [1.8, 0, 1.8], [1.8, 1.8, 0]], pbc=True),
        ase.Atoms("OH2", random.normal(size=(3, 3))),
        ase.Atoms("C2", [[0, 0, 0], [1.42, 0, 0]], cell=[[2.46, 0, 0], [1.23, 2.13, 0], [0, 0, 9]], pbc=[1, 1, 0]),
    ]
    ase.io.write(tmp_path / "frames.extxyz", frames)
    return load(tmp_path / "frames.extxyz")


def assert_same(first: Data, second: Data) -> None:
    assert set(first.keys()) == set(second.keys())
    for key in first.keys():  # noqa: SIM118
        assert torch.equal(first[key], second[key]), key
        assert first[key].dtype == second[key].dtype, key


@pytest.mark.parametrize("cutoff", [None, 3.0])
@pytest.mark.parametrize("name", ["qm7", "periodic"])
def test_a_batch_is_what_pyg_makes(name, cutoff, request):
    dataset = request.getfixturevalue(name)
    places = [3, 0, 2, 2]
    batch = dataset.batch(places, cutoff=cutoff)
    singles = [dataset.batch([place], cutoff=cutoff)[0] for place in places]
    assert isinstance(batch, Batch)
    assert batch.num_graphs == len(batch) == 4
    for single, part in zip(singles, batch.to_data_list()):
        assert_same(single, part)
    assert_same(batch, Batch.from_data_list(singles))
    assert_same(batch[1:3][1], singles[2])
    assert batch.structure_id.tolist() == places


def test_a_batch_survives_what_pyg_does_with_it(qm7):
    batch = qm7.batch([5, 1], cutoff=2.0)
    assert_same(pickle.loads(pickle.dumps(batch)), batch)
    assert_same(batch.clone().to("cpu")[1], batch[1])
    assert_same(copy.copy(batch).contiguous()[0], batch[0])
    assert batch.num_nodes == len(batch.pos)


@pytest.mark.parametrize("name", ["qm7", "periodic"])
@pytest.mark.parametrize("kept", [False, True])
def test_edges_are_all_pairs_within_the_cutoff(name, kept, request):
    dataset = request.getfixturevalue(name)
    cutoff = 3.1
    if kept:
        dataset.keep_edges(cutoff)
    count = len(dataset)
    batch = dataset.batch(range(count), cutoff=cutoff, dtype=torch.float64)
    sender, receiver = batch.edge_index
    assert torch.all(receiver.diff() >= 0)
    assert batch.edge_cutoff.tolist() == [cutoff] * count
    found = set()
    shifts = batch.edge_shifts if "edge_shifts" in batch else torch.zeros(len(sender), 3)
    for j, i, shift in zip(sender.tolist(), receiver.tolist(), shifts.tolist()):
        assert batch.batch[i] == batch.batch[j]
        found.add((j, i, *(int(s) for s in shift)))
    assert len(found) == len(sender)
    expected = set()
    cells = [(a, b, c) for a in range(-3, 4) for b in range(-3, 4) for c in range(-3, 4)]
    for g in range(count):
        first, last = int(batch.ptr[g]), int(batch.ptr[g + 1])
        pbc = batch.pbc[g].tolist() if "pbc" in batch else [False] * 3
        cell = batch.cell[g] if "cell" in batch else torch.zeros(3, 3, dtype=torch.float64)
        images = [image for image in cells if all(p or not s for p, s in zip(pbc, image))]
        for i in range(first, last):
            for j in range(first, last):
                for image in images:
                    if i == j and image == (0, 0, 0):
                        continue
                    vector = batch.pos[j] - batch.pos[i] + torch.tensor(image, dtype=torch.float64) @ cell
                    if vector.norm() < cutoff:
                        expected.add((j, i, *image))
    assert found == expected


def test_kept_edges_are_stored_beside_the_cache(root):
    load("qm7", sample=True).keep_edges(4.0)
    (folder,) = root.glob("qm7/*-edges-4.0")
    first = load("qm7", sample=True)
    first.keep_edges(4.0)
    assert_same(first.batch([4, 9], cutoff=4.0), load("qm7", sample=True).batch([4, 9], cutoff=4.0))
    (folder / "pairs.npy").unlink()
    with pytest.raises(DataError, match=r"pairs.npy is missing"):
        load("qm7", sample=True).keep_edges(4.0)


def test_stored_edges_of_another_layout_are_computed_again(root, monkeypatch):
    load("qm7", sample=True).keep_edges(4.0)
    (folder,) = root.glob("qm7/*-edges-4.0")
    before = (folder / INDEX).read_text()
    monkeypatch.setattr(edges, "_LAYOUT", edges._LAYOUT + 1)
    load("qm7", sample=True).keep_edges(4.0)
    assert (folder / INDEX).read_text() != before


def test_dtypes(qm7):
    for dtype in (torch.float32, torch.float64):
        batch = qm7.batch([0, 1], cutoff=2.0, dtype=dtype)
        assert batch.pos.dtype == batch.atomization_energy.dtype == batch.edge_cutoff.dtype == dtype
        assert batch.z.dtype == batch.edge_index.dtype == batch.ptr.dtype == torch.int64
    exact = qm7.batch([0], dtype=torch.float64)
    np.testing.assert_array_equal(exact.pos.numpy(), qm7.positions[:5])


def test_a_batch_does_not_share_memory_with_the_cache(qm7):
    batch = qm7.batch([0, 1], dtype=torch.float64)
    batch.pos += 1
    assert not torch.equal(batch.pos, qm7.batch([0, 1], dtype=torch.float64).pos)


def test_one_record(qm7):
    data = qm7[3]
    assert type(data) is Data
    assert data.atomization_energy.shape == (1,)
    assert_same(qm7[-1], qm7[99])
    assert "batch" not in data


def test_all_records_one_after_the_other(qm7):
    sample = [data.pos for data in qm7]
    assert len(sample) == len(qm7)
    assert torch.equal(sample[-1], qm7[len(qm7) - 1].pos)


def test_targets_are_chosen():
    dataset = load("qm9", sample=True)
    batch = dataset.batch([0, 1], targets=["gap", "rotational_constants"])
    assert "homo" not in batch
    assert batch.rotational_constants.shape == (2, 3)
    assert "gap" not in dataset.batch([0], targets=[])
    with pytest.raises(DataError, match=r"qm9: No target is called 'gpa'. Did you mean 'gap'\?"):
        dataset.batch([0], targets=["gpa"])


@pytest.mark.parametrize("place", [100, -101, 10**9])
def test_an_index_outside(qm7, place):
    with pytest.raises(InputError, match=f"qm7: there is no structure {place}; they are numbered 0 to 99"):
        qm7.batch([0, place])
    with pytest.raises(InputError, match="there is no structure"):
        qm7[place]


def test_a_batch_of_nothing(qm7):
    with pytest.raises(InputError, match="a batch needs at least one structure"):
        qm7.batch([])


def test_a_worker_opens_the_cache_itself(qm7):
    sent = pickle.dumps(qm7)
    assert len(sent) < 20_000
    assert_same(pickle.loads(sent)[5], qm7[5])


def test_preparing_again_is_free_and_a_changed_source_is_noticed(root, tmp_path):
    from geoeq.data import prepare, read_card
    from geoeq.data.card import load_card

    original = load_card("qm7")
    folder = tmp_path / "mine"
    (folder / "sample").mkdir(parents=True)
    text = (type(tmp_path)(original.folder) / "card.yaml").read_text().replace("name: qm7", "name: mine")
    (folder / "card.yaml").write_text(text)
    sample = folder / "sample" / "qm7_100.npz"
    sample.write_bytes((type(tmp_path)(original.folder) / "sample" / "qm7_100.npz").read_bytes())
    card = read_card(folder / "card.yaml")
    first = prepare(card, sample=True)
    index = first / "index.json"
    before = index.stat().st_mtime_ns
    assert prepare(card, sample=True) == first
    assert index.stat().st_mtime_ns == before
    with np.load(sample) as arrays:
        changed = dict(arrays)
    changed["pbe0_milli_kcal"] = changed["pbe0_milli_kcal"] + 1000
    np.savez_compressed(sample, **changed)
    prepare(card, sample=True)
    new = load(folder / "card.yaml", sample=True).targets["atomization_energy"]
    old = load("qm7", sample=True).targets["atomization_energy"]
    np.testing.assert_allclose(new - old, 0.0433641, rtol=1e-4)
    sample.unlink()
    assert len(load(folder / "card.yaml", sample=True)) == 100, "the cache is enough"


@pytest.mark.parametrize(
    ("position", "error", "message"),
    [(np.nan, NonFiniteError, "structure 1: .*atom 1"), (0.0, CoincidentAtomsError, "structure 1: .*atom")],
)
def test_structures_that_cannot_be(tmp_path, position, error, message):
    good = ase.Atoms("OH2", [[0, 0, 0], [1, 0, 0], [0, 1, 0]])
    bad = good.copy()
    bad.positions[1, 0] = position
    ase.io.write(tmp_path / "x.traj", [good, bad, good])
    with pytest.raises(error, match=message):
        load(tmp_path / "x.traj")
