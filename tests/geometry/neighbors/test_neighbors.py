"""Neighbour lists against ASE's, against each other, and against what they must keep."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.neighborlist import neighbor_list

import geoeq.geometry.neighbors
from geoeq.errors import CellError, ExtentError, InputError, TensorError
from geoeq.geometry.neighbors import (
    Edges,
    edge_lengths,
    edge_vectors,
    full_edges,
    nearest_edges,
    radius_edges,
    select_edges,
    sort_edges,
)
from geoeq.geometry.neighbors.brute import CPU_ELEMENTS
from geoeq.pointers import batch_from_ptr

METHODS = ("brute", "vesin")
DTYPES = (torch.float64, torch.float32)


def same_edges(first: Edges, second: Edges) -> bool:
    if (first.shifts is None) != (second.shifts is None):
        return False
    return all(a is b or torch.equal(a, b) for a, b in zip(first, second))


def triples(edges: Edges) -> list[tuple[int, ...]]:
    """(receiver, sender, shift) of each edge, in the order in which they are given."""
    shifts = torch.zeros(len(edges.sender), 3) if edges.shifts is None else edges.shifts
    columns = [edges.receiver, edges.sender, *shifts.long().unbind(1)]
    return list(zip(*(column.tolist() for column in columns)))


def from_ase(positions, ptr, cutoff, cell, pbc) -> list[tuple[int, ...]]:
    """The same from ASE, graph by graph."""
    found = []
    for graph, (start, stop) in enumerate(zip(ptr[:-1].tolist(), ptr[1:].tolist())):
        atoms = Atoms(positions=positions[start:stop].double().numpy(), cell=cell[graph].double().numpy())
        atoms.pbc = pbc[graph].numpy()
        i, j, shift = neighbor_list("ijS", atoms, cutoff)
        found += zip((i + start).tolist(), (j + start).tolist(), *shift.T.tolist())
    return sorted(found)


def random_structures(seed: int, dtype: torch.dtype):
    """A mixed batch: triclinic cells of both hands, atoms in and out of them, any periodic directions, flat ones."""
    random = np.random.default_rng(seed)
    positions, cells, periodic = [], [], random.random((6, 3)) < random.choice([0.2, 0.6, 1.0])
    for pbc in periodic:
        cell = random.normal(size=(3, 3)) * random.uniform(1, 6)
        lengths = np.linalg.norm(cell, axis=1)
        while abs(np.linalg.det(cell)) < 0.2 * lengths.prod() or lengths.min() < 0.7:
            cell = random.normal(size=(3, 3)) * random.uniform(1, 6)
            lengths = np.linalg.norm(cell, axis=1)
        place = random.random((random.integers(1, 12), 3)) @ cell * random.uniform(0.5, 3) - 10 * random.random(3)
        if random.random() < 0.4:
            place[:, random.integers(3)] = 0.0  # coplanar
        if random.random() < 0.5:
            cell[~pbc] = 0.0  # as ASE leaves the open direction of a slab
        positions.append(torch.tensor(place, dtype=dtype))
        cells.append(torch.tensor(cell, dtype=dtype))
    ptr = torch.tensor([0, *map(len, positions)]).cumsum(0)
    cutoff = float(random.uniform(1, 5))
    return torch.cat(positions), ptr, cutoff, torch.stack(cells), torch.tensor(periodic)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(12))
def test_periodic_edges_are_those_of_ase(seed, dtype):
    positions, ptr, cutoff, cell, pbc = random_structures(seed, dtype)
    brute, vesin = (radius_edges(positions, ptr, cutoff, cell, pbc, method=method) for method in METHODS)
    assert triples(brute) == from_ase(positions, ptr, cutoff, cell, pbc)
    assert same_edges(brute, vesin)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("flat", [0, 1, 2])
def test_open_edges_are_all_pairs_below_the_cutoff(method, dtype, flat):
    positions = 2 * torch.randn(40, 3, dtype=dtype)
    positions[:, :flat] = 0.0  # in a plane, on a line
    ptr = torch.tensor([0, 1, 13, 14, 40])
    batch = batch_from_ptr(ptr, 40)
    lengths = (positions[:, None] - positions[None]).square().sum(-1).sqrt()
    close = (lengths < 2.5) & (batch[:, None] == batch[None]) & ~torch.eye(40, dtype=torch.bool)
    edges = radius_edges(positions, ptr, 2.5, method=method)
    assert edges.shifts is None
    assert torch.equal(torch.stack([edges.receiver, edges.sender], 1), close.nonzero())
    assert edges.row_pointers.tolist() == [0, *close.sum(1).cumsum(0).tolist()]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shell", [1, 2, 3, 4, 5, 6])
def test_methods_agree_on_ties(shell, dtype):
    """All distances of a cubic lattice are ties with a cutoff at one of its shells."""
    cell = 0.7 * torch.eye(3, dtype=dtype)[None]
    places = torch.cartesian_prod(*[torch.arange(2)] * 3).to(dtype) * 0.7 + 0.13
    ptr, pbc, cutoff = torch.tensor([0, 8]), torch.ones(1, 3, dtype=torch.bool), 0.7 * math.sqrt(shell)
    brute, vesin = (radius_edges(places, ptr, cutoff, 2 * cell, pbc, method=method) for method in METHODS)
    assert same_edges(brute, vesin)
    batch = torch.zeros(8, dtype=torch.long)
    lengths = edge_lengths(edge_vectors(places, brute.sender, brute.receiver, brute.shifts, 2 * cell, batch))
    assert bool((lengths < cutoff).all())
    open_brute, open_vesin = (radius_edges(places, ptr, cutoff, method=method) for method in METHODS)
    assert same_edges(open_brute, open_vesin)


def test_every_edge_has_its_reverse():
    positions, ptr, cutoff, cell, pbc = random_structures(5, torch.float32)
    edges = triples(radius_edges(positions, ptr, cutoff, cell, pbc))
    assert len(edges) > 100
    assert {(j, i, -a, -b, -c) for i, j, a, b, c in edges} == set(edges)


@pytest.mark.parametrize("method", METHODS)
def test_lattice_vectors_and_translations_keep_the_edges(method):
    positions, ptr, cutoff, cell, pbc = random_structures(3, torch.float64)
    batch = batch_from_ptr(ptr, len(positions))
    moves = torch.randint(-3, 4, (len(positions), 3)) * pbc[batch]
    moved = positions + torch.einsum("nk,nkx->nx", moves.double(), cell[batch]) + torch.tensor([7.1, -20.3, 0.4])
    before = radius_edges(positions, ptr, cutoff, cell, pbc, method=method)
    after = radius_edges(moved, ptr, cutoff, cell, pbc, method=method)
    back = after.shifts + moves[after.sender] - moves[after.receiver]
    unmoved, _ = sort_edges(torch.stack([after.sender, after.receiver]), len(positions), back)
    assert same_edges(unmoved, before)


@pytest.mark.parametrize("method", METHODS)
def test_an_atom_is_its_own_neighbour_through_the_boundary_only(method):
    cell, pbc = 2.0 * torch.eye(3)[None], torch.tensor([[True, False, False]])
    edges = radius_edges(torch.zeros(1, 3), torch.tensor([0, 1]), 4.5, cell, pbc, method=method)
    assert triples(edges) == [(0, 0, -2, 0, 0), (0, 0, -1, 0, 0), (0, 0, 1, 0, 0), (0, 0, 2, 0, 0)]


@pytest.mark.parametrize("method", METHODS)
def test_nodes_at_one_place_are_neighbours(method):
    edges = radius_edges(torch.zeros(3, 3), torch.tensor([0, 3]), 1.0, method=method)
    assert len(edges.sender) == 6


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_far_from_the_origin_no_edge_is_lost(method, dtype):
    """What counts is the length as it is rounded there, however coarse that is."""
    positions = torch.rand(30, 3, dtype=dtype) * 4 + torch.tensor([3.1e4, -1.7e5, 9.3e4], dtype=dtype)
    cell, pbc, ptr = 4.0 * torch.eye(3, dtype=dtype)[None], torch.ones(1, 3, dtype=torch.bool), torch.tensor([0, 30])
    found = radius_edges(positions, ptr, 3.0, cell, pbc, method=method)
    shifts = torch.cartesian_prod(*[torch.arange(-3, 4)] * 3).to(dtype)
    receiver, sender, image = torch.cartesian_prod(torch.arange(30), torch.arange(30), torch.arange(343)).unbind(1)
    vectors = edge_vectors(positions, sender, receiver, shifts[image], cell, torch.zeros(30, dtype=torch.long))
    keep = (edge_lengths(vectors) < 3.0) & ((sender != receiver) | (shifts[image] != 0).any(1))
    assert same_edges(found, select_edges(sender, receiver, shifts[image], keep.nonzero().squeeze(1), 30))


def test_slices_of_bounded_memory_give_the_same_edges():
    positions = torch.rand(1200, 3) * 20
    ptr = torch.tensor([0, 1000, 1100, 1200])
    assert 2 * CPU_ELEMENTS < 1200 * 1000
    brute, vesin = (radius_edges(positions, ptr, 2.0, method=method) for method in METHODS)
    assert same_edges(brute, vesin)
    cell, pbc = 20 * torch.eye(3).expand(3, 3, 3), torch.ones(3, 3, dtype=torch.bool)
    brute, vesin = (radius_edges(positions, ptr, 2.0, cell, pbc, method=method) for method in METHODS)
    assert same_edges(brute, vesin)


@pytest.mark.parametrize(
    ("nodes", "cutoff", "expected"),
    [
        (20, 3.0, "brute"),
        (200, 3.0, "brute"),
        (300, 3.0, "vesin"),  # 11 neighbours each: cell lists are faster from about 250 nodes
        (300, 5.0, "brute"),  # 52 neighbours: from about 500
        (600, 5.0, "vesin"),
        (600, 8.0, "brute"),
        (1500, 3.0, "vesin"),
    ],
)
def test_auto_takes_cell_lists_for_large_graphs(monkeypatch, nodes, cutoff, expected):
    """A liquid with the density of water."""
    called = []
    for name, method in (("open_pairs", "brute"), ("vesin_pairs", "vesin")):
        original = getattr(geoeq.geometry.neighbors, name)
        spy = lambda *arguments, original=original, method=method: called.append(method) or original(*arguments)  # noqa: E731
        monkeypatch.setattr(geoeq.geometry.neighbors, name, spy)
    side, generator = (nodes / 0.1) ** (1 / 3), torch.Generator().manual_seed(0)
    radius_edges(torch.rand(nodes, 3, generator=generator) * side, torch.tensor([0, nodes]), cutoff)
    assert called == [expected]


def test_no_graphs_and_no_edges():
    empty = radius_edges(torch.zeros(0, 3), torch.tensor([0]), 3.0)
    assert empty.sender.shape == (0,)
    assert empty.row_pointers.tolist() == [0]
    for method in METHODS:
        alone = radius_edges(torch.tensor([[0.0, 0, 0], [9, 0, 0]]), torch.tensor([0, 2, 2]), 3.0, method=method)
        assert alone.sender.shape == (0,)
        assert alone.row_pointers.tolist() == [0, 0, 0]
    assert nearest_edges(torch.zeros(0, 3), torch.tensor([0]), 2).sender.shape == (0,)


class TestErrors:
    cell = torch.eye(3)[None] * 4
    pbc = torch.ones(1, 3, dtype=torch.bool)
    pair, ptr = torch.tensor([[0.0, 0, 0], [1, 1, 1]]), torch.tensor([0, 2])

    def test_extent_too_large_for_vesin_names_the_graph(self):
        positions = torch.cat([self.pair, self.pair * torch.tensor([1e6, 1, 1])])
        with pytest.raises(ExtentError, match=r"Graph 1 extends over 1e\+06 Å, more than 1e\+04 times the cutoff"):
            radius_edges(positions, torch.tensor([0, 2, 4]), 3.0, method="vesin")

    def test_auto_goes_around_it_where_that_is_affordable(self):
        positions = torch.rand(1200, 3, dtype=torch.float64) * 20
        positions[7, 0] = 1e7  # vesin would end the process
        edges = radius_edges(positions, torch.tensor([0, 1200]), 2.0)
        assert same_edges(edges, radius_edges(positions, torch.tensor([0, 1200]), 2.0, method="brute"))

    @pytest.mark.parametrize("method", METHODS)
    def test_cell_too_small_for_the_cutoff(self, method):
        with pytest.raises(ExtentError, match=r"images of the cell of graph 0.*same unit"):
            radius_edges(self.pair, self.ptr, 5.0, self.cell * 1e-3, self.pbc, method=method)

    @pytest.mark.parametrize("direction", [0, 1, 2])
    def test_zero_vector_in_a_periodic_direction(self, direction):
        cell = self.cell.clone()
        cell[0, direction] = 0.0
        with pytest.raises(CellError, match=f"Graph 0 is periodic along {'abc'[direction]}, but that cell vector"):
            radius_edges(self.pair, self.ptr, 3.0, cell, self.pbc)
        open_there = self.pbc.clone()
        open_there[0, direction] = False
        assert len(radius_edges(self.pair, self.ptr, 3.0, cell, open_there).sender) > 0

    def test_flat_cell(self):
        cell = torch.tensor([[[1.0, 0, 0], [0, 1, 0], [1, 1, 0]]])
        with pytest.raises(CellError, match=r"Graph 0: .* span no volume"):
            radius_edges(self.pair, self.ptr, 3.0, cell, self.pbc)

    def test_arguments(self):
        with pytest.raises(InputError, match=r"No method of radius_edges is called 'brut'. Did you mean 'brute'\?"):
            radius_edges(self.pair, self.ptr, 3.0, method="brut")
        with pytest.raises(InputError, match="The cutoff is -1"):
            radius_edges(self.pair, self.ptr, -1.0)
        with pytest.raises(TensorError, match="A cell is given without pbc"):
            radius_edges(self.pair, self.ptr, 3.0, self.cell)
        with pytest.raises(TensorError, match="pbc is given without a cell"):
            radius_edges(self.pair, self.ptr, 3.0, None, self.pbc)
        with pytest.raises(InputError, match="k is 0"):
            nearest_edges(self.pair, self.ptr, 0)


@pytest.mark.parametrize("k", [1, 3, 8, 50])
def test_nearest_edges(k):
    positions, ptr = torch.randn(31, 3), torch.tensor([0, 1, 3, 20, 31])
    expected = []
    for start, stop in zip(ptr[:-1].tolist(), ptr[1:].tolist()):
        for i in range(start, stop):
            others = [j for j in range(start, stop) if j != i]
            others.sort(key=lambda j: float((positions[j] - positions[i]).square().sum()))
            expected += [(i, j, 0, 0, 0) for j in sorted(others[:k])]
    assert triples(nearest_edges(positions, ptr, k)) == expected


def test_nearest_edges_break_ties_by_index():
    line = torch.tensor([[0.0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
    edges = nearest_edges(line, torch.tensor([0, 5]), 2)
    assert edges.sender[edges.receiver == 0].tolist() == [1, 2]


def test_nearest_edges_of_coincident_points():
    edges = nearest_edges(torch.zeros(4, 3), torch.tensor([0, 4]), 2)
    assert edges.sender.tolist() == [1, 2, 0, 2, 0, 1, 0, 1]


def test_full_edges():
    edges = full_edges(torch.tensor([0, 3, 4, 6]))
    assert edges.receiver.tolist() == [0, 0, 1, 1, 2, 2, 4, 5]
    assert edges.sender.tolist() == [1, 2, 0, 2, 0, 1, 5, 4]
    assert edges.row_pointers.tolist() == [0, 2, 4, 6, 6, 7, 8]
    assert full_edges(torch.tensor([0])).row_pointers.tolist() == [0]


@pytest.mark.parametrize("spread", [3, 10**7])
def test_sort_edges(spread):
    """The larger spread of shifts does not fit into one sorting key."""
    edge_index, shifts = torch.randint(0, 4, (2, 60)), torch.randint(-spread, spread, (60, 3)).float()
    edges, order = sort_edges(edge_index, 4, shifts)
    keys = list(zip(edge_index[1].tolist(), edge_index[0].tolist(), *shifts.long().T.tolist()))
    assert triples(edges) == sorted(keys)
    assert [keys[place] for place in order.tolist()] == sorted(keys)
    assert edges.row_pointers.tolist() == [0, *edge_index[1].bincount(minlength=4).cumsum(0).tolist()]


@pytest.mark.gpu
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("method", METHODS)
def test_gpu_finds_the_edges_of_the_cpu(seed, method):
    positions, ptr, cutoff, cell, pbc = random_structures(seed, torch.float64)
    expected = radius_edges(positions, ptr, cutoff, cell, pbc)
    found = radius_edges(positions.cuda(), ptr.cuda(), cutoff, cell.cuda(), pbc.cuda(), method=method)
    assert found.sender.is_cuda
    assert triples(Edges(*(None if t is None else t.cpu() for t in found))) == triples(expected)
    open_edges = radius_edges(positions.cuda(), ptr.cuda(), cutoff, method=method)
    assert triples(Edges(*(None if t is None else t.cpu() for t in open_edges))) == triples(
        radius_edges(positions, ptr, cutoff)
    )
    near = nearest_edges(positions.cuda(), ptr.cuda(), 3)
    assert torch.equal(near.sender.cpu(), nearest_edges(positions, ptr, 3).sender)
