"""Edges with a skin are those without, whatever the structure does."""

from __future__ import annotations

import pytest
import torch

from geoeq.errors import InputError
from geoeq.geometry.neighbors import radius_edges
from geoeq.simulate import NeighborList

CUTOFF = 3.0


def compare(edges, positions, cell=None, pbc=None):
    expected = radius_edges(positions, torch.tensor([0, len(positions)]), CUTOFF, cell, pbc)
    assert torch.equal(edges.sender, expected.sender)
    assert torch.equal(edges.receiver, expected.receiver)
    assert torch.equal(edges.row_pointers, expected.row_pointers)
    if expected.shifts is not None:
        assert torch.equal(edges.shifts, expected.shifts)


def structure(count=30, size=6.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    positions = size * torch.rand(count, 3, generator=generator, dtype=torch.float64)
    cell = size * torch.eye(3, dtype=torch.float64) + torch.rand(3, 3, generator=generator, dtype=torch.float64)
    return positions, cell[None], generator


@pytest.mark.parametrize("periodic", [(True, True, True), (True, True, False), (False, True, False), None])
@pytest.mark.parametrize("skin", [0.0, 0.4])
def test_edges_of_atoms_that_move(periodic, skin):
    positions, cell, generator = structure()
    pbc = None if periodic is None else torch.tensor([periodic])
    cell = None if pbc is None else cell
    neighbors = NeighborList(CUTOFF, skin)
    for _ in range(30):
        positions = positions + 0.05 * torch.randn(positions.shape, generator=generator, dtype=torch.float64)
        compare(neighbors.edges(positions, cell, pbc), positions, cell, pbc)
    assert neighbors.calls == 30
    assert neighbors.rebuilds == 30 if skin == 0 else 1 < neighbors.rebuilds < 30


@pytest.mark.parametrize("periodic", [(True, True, True), (True, False, True)])
def test_edges_while_the_cell_breathes_and_shears(periodic):
    positions, cell, generator = structure()
    pbc, neighbors = torch.tensor([periodic]), NeighborList(CUTOFF, 0.6)
    for _ in range(30):
        strain = 0.01 * torch.randn(3, 3, generator=generator, dtype=torch.float64)
        change = torch.eye(3, dtype=torch.float64) + strain
        positions, cell = positions @ change, cell @ change
        positions = positions + 0.01 * torch.randn(positions.shape, generator=generator, dtype=torch.float64)
        compare(neighbors.edges(positions, cell, pbc), positions, cell, pbc)
    assert 1 < neighbors.rebuilds < 30


def test_atoms_put_back_into_the_cell():
    positions, cell, _ = structure()
    pbc, neighbors = torch.tensor([[True, True, True]]), NeighborList(CUTOFF)
    neighbors.edges(positions, cell, pbc)
    wrapped = positions.clone()
    wrapped[3] = wrapped[3] + cell[0, 0]
    compare(neighbors.edges(wrapped, cell, pbc), wrapped, cell, pbc)
    assert neighbors.rebuilds == 2


def test_atoms_added_taken_away_and_boundaries_opened():
    positions, cell, _ = structure()
    pbc, neighbors = torch.tensor([[True, True, True]]), NeighborList(CUTOFF)
    for count in (30, 29, 0, 1, 30):
        compare(neighbors.edges(positions[:count], cell, pbc), positions[:count], cell, pbc)
    opened = torch.tensor([[True, False, True]])
    compare(neighbors.edges(positions, cell, opened), positions, cell, opened)
    compare(neighbors.edges(positions), positions)


def test_nothing_is_found_twice_while_nothing_moves():
    positions, _, _ = structure()
    neighbors = NeighborList(CUTOFF)
    for _ in range(3):
        neighbors.edges(positions)
    assert (neighbors.calls, neighbors.rebuilds) == (3, 1)


@pytest.mark.parametrize("skin", [-0.1, float("inf"), float("nan")])
def test_the_skin_is_a_length(skin):
    with pytest.raises(InputError, match="The skin is"):
        NeighborList(CUTOFF, skin)
