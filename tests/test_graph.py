"""Graphs: where their edges come from, their geometry, and that every derivative of it is finite and right."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from e3nn import o3
from torch.autograd import gradcheck, gradgradcheck
from torch_geometric.data import Batch, Data

from geoeq.errors import CellError, InputError, TensorError
from geoeq.geometry.harmonics import MAX_LMAX, harmonics
from geoeq.geometry.neighbors import edge_lengths, radius_edges
from geoeq.graph import Graph, build_graph
from geoeq.layers.transformer import with_loops

DTYPES = (torch.float64, torch.float32)
AXES = torch.cat([torch.eye(3), -torch.eye(3), torch.zeros(1, 3)])


def molecules(*sizes: int, dtype: torch.dtype = torch.float64) -> Batch:
    return Batch.from_data_list([Data(pos=torch.randn(n, 3, dtype=dtype), edge_index=None) for n in sizes])


def crystals(dtype: torch.dtype = torch.float64) -> Batch:
    """A triclinic crystal, a slab and a molecule."""
    periodic = torch.tensor([[True] * 3, [True, True, False], [False] * 3])
    graphs = []
    for n, pbc in zip((4, 5, 3), periodic):
        cell = 3 * torch.eye(3, dtype=dtype) + 0.5 * torch.randn(3, 3, dtype=dtype)
        pos = 3 * torch.rand(n, 3, dtype=dtype)
        graphs.append(Data(pos=pos, cell=cell[None] * pbc[None, :, None], pbc=pbc[None]))
    return Batch.from_data_list(graphs)


def with_edges(batch: Batch, cutoff: float) -> Batch:
    """As a loader gives it: with edges and the cutoff that they are for."""
    edges = radius_edges(batch.pos, batch.ptr, cutoff, batch.cell, batch.pbc)
    batch = batch.clone()
    batch.edge_index = torch.stack([edges.sender, edges.receiver])
    batch.edge_shifts = edges.shifts
    batch.edge_cutoff = torch.full((batch.num_graphs,), cutoff, dtype=batch.pos.dtype)
    return batch


def assert_same(first: Graph, second: Graph) -> None:
    for field in dataclasses.fields(Graph):
        one, other = getattr(first, field.name), getattr(second, field.name)
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other, field.name


@pytest.mark.parametrize("dtype", DTYPES)
def test_geometry_by_definition(dtype):
    data = crystals(dtype)
    graph = build_graph(data, 4.0, lmax=2)
    edges = radius_edges(data.pos, data.ptr, 4.0, data.cell, data.pbc)
    for edge in range(0, len(graph.sender), 7):
        j, i = int(graph.sender[edge]), int(graph.receiver[edge])
        vector = data.pos[j] - data.pos[i] + edges.shifts[edge] @ data.cell[data.batch[i]]
        torch.testing.assert_close(graph.vectors[edge], vector)
        assert 0 < graph.lengths[edge] < 4.0
    torch.testing.assert_close(graph.lengths, graph.vectors.norm(dim=1))
    expected = o3.spherical_harmonics([0, 1, 2], graph.vectors, normalize=True, normalization="component")
    torch.testing.assert_close(graph.harmonics, expected)
    for value in (graph.vectors, graph.lengths, graph.harmonics, graph.degree):
        assert value.dtype == dtype
    assert graph.degree.tolist() == graph.receiver.bincount(minlength=12).tolist()
    assert (graph.num_graphs, graph.num_nodes, graph.cutoff, graph.lmax) == (3, 12, 4.0, 2)
    assert torch.equal(graph.batch, data.batch)


def test_edges_go_from_sender_to_receiver():
    """One sign convention: the vector points from the receiver to the sender."""
    data = Data(pos=torch.tensor([[0.0, 0, 0], [0, 0, 2]]), edge_index=torch.tensor([[1], [0]]))
    assert build_graph(data).vectors.tolist() == [[0.0, 0.0, 2.0]]


class TestSources:
    def test_complete_graph_without_edges(self):
        assert build_graph(molecules(4, 1, 3)).degree.tolist() == [3, 3, 3, 3, 0, 2, 2, 2]

    def test_nearest(self):
        assert build_graph(molecules(4, 1, 3), k=2).degree.tolist() == [2, 2, 2, 2, 0, 2, 2, 2]

    def test_graphs_by_batch_alone_or_one(self):
        data = molecules(4, 3)
        assert build_graph(Data(pos=data.pos, batch=data.batch)).degree.tolist() == [3] * 4 + [2] * 3
        assert build_graph(Data(pos=data.pos)).degree.tolist() == [6] * 7

    def test_a_single_structure_may_have_a_cell_without_the_graph_dimension(self):
        pos, cell = torch.rand(3, 3), 3 * torch.eye(3)
        single = build_graph(Data(pos=pos, cell=cell, pbc=torch.ones(3, dtype=torch.bool)), 2.0)
        assert_same(single, build_graph(Data(pos=pos, cell=cell[None], pbc=torch.ones(1, 3, dtype=torch.bool)), 2.0))
        assert len(single.sender) > 0

    def test_edges_of_the_same_cutoff_are_used_and_others_not(self):
        data = with_edges(crystals(), 3.0)
        assert_same(build_graph(data, 3.0), build_graph(crystals_like(data), 3.0))
        data.edge_index, data.edge_shifts = data.edge_index[:, :5], data.edge_shifts[:5]
        assert len(build_graph(data, 3.0).sender) == 5
        assert len(build_graph(data, 4.0).sender) > 5
        data.edge_cutoff[1] = 4.0
        assert len(build_graph(data, 3.0).sender) > 5

    def test_given_edges_are_sorted_with_their_attributes(self):
        data = molecules(5)
        sender, receiver = torch.randint(0, 5, (2, 12))
        data.edge_index = torch.stack([sender, receiver])
        data.edge_attr = torch.stack([sender, receiver], 1).double()
        graph = build_graph(data)
        key = graph.receiver * 5 + graph.sender
        assert bool((key.diff() >= 0).all())
        assert torch.equal(graph.edge_attr.long(), torch.stack([graph.sender, graph.receiver], 1))
        data.edge_attr = sender.double()
        assert torch.equal(build_graph(data).edge_attr, graph.sender.double()[:, None])

    def test_sorted_edges_keep_their_order(self):
        data = molecules(3)
        data.edge_index = torch.tensor([[2, 1, 0], [0, 0, 1]])
        assert build_graph(data).sender.tolist() == [2, 1, 0]

    def test_attributes_of_other_edges_are_left_out(self):
        data = molecules(3)
        data.edge_index, data.edge_attr = torch.tensor([[1], [0]]), torch.ones(1, 2)
        assert build_graph(data, 5.0).edge_attr is None


def crystals_like(data: Batch) -> Data:
    return Data(pos=data.pos, batch=data.batch, ptr=data.ptr, cell=data.cell, pbc=data.pbc)


class TestErrors:
    def given(self, **changes):
        data = {"pos": torch.rand(3, 3), "edge_index": torch.tensor([[0, 1], [1, 0]])} | changes
        return Data(**data)

    def test_edge_index(self):
        with pytest.raises(
            TensorError, match=r"edge_index has shape \[2, 3\] and dtype torch.float32: it must be \[2, E\]"
        ):
            build_graph(self.given(edge_index=torch.zeros(2, 3)))
        with pytest.raises(TensorError, match=r"edge_index has shape \[3, 2\]"):
            build_graph(self.given(edge_index=torch.zeros(3, 2, dtype=torch.long)))
        for node in (3, -1):
            with pytest.raises(TensorError, match=rf"Edge 1 of edge_index is \[{node}, 0\], .* from 0 to 2"):
                build_graph(self.given(edge_index=torch.tensor([[1, node], [0, 0]])))

    def test_attributes_and_shifts(self):
        with pytest.raises(TensorError, match=r"edge_attr has shape \[3, 4\]; .* \[2, A\]"):
            build_graph(self.given(edge_attr=torch.zeros(3, 4)))
        with pytest.raises(TensorError, match=r"edge_shifts has shape \[2, 2\]; .* \[2, 3\]"):
            build_graph(self.given(edge_shifts=torch.zeros(2, 2)))
        with pytest.raises(TensorError, match="edge_shifts are given without a cell"):
            build_graph(self.given(edge_shifts=torch.zeros(2, 3)))

    def test_arguments(self):
        with pytest.raises(InputError, match=r"a cutoff \(3.0\) or a number of neighbours \(2\), not both"):
            build_graph(self.given(), 3.0, k=2)
        for lmax in (-1, MAX_LMAX + 1):
            with pytest.raises(InputError, match=f"lmax is {lmax}; .* 0 to {MAX_LMAX}"):
                build_graph(self.given(), lmax=lmax)

    def test_periodic_structures_need_a_cutoff(self):
        data = crystals()
        with pytest.raises(CellError, match=r"Graph 0 is periodic, but the 2 nearest neighbours are for open"):
            build_graph(data, k=2)
        with pytest.raises(CellError, match="the complete graph is for open"):
            build_graph(data)


class TestDerivatives:
    """Of first and second order, for edges of any direction, along the axes, and of no length."""

    vectors = torch.cat([AXES[:6], torch.randn(4, 3, generator=torch.Generator().manual_seed(1))]).double()

    @pytest.mark.parametrize("lmax", [1, 2, 4])
    def test_harmonics(self, lmax):
        vectors = self.vectors.clone().requires_grad_()
        function = lambda v: harmonics(v, edge_lengths(v), lmax)  # noqa: E731
        assert gradcheck(function, vectors)
        assert gradgradcheck(function, vectors)

    def test_lengths(self):
        vectors = self.vectors.clone().requires_grad_()
        assert gradcheck(edge_lengths, vectors)
        assert gradgradcheck(edge_lengths, vectors)

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("size", [0.0, 1e-300, 1e-40, 1e-20, 1e-12, 1e-9, 1e-6])
    def test_vectors_of_hardly_any_length(self, dtype, size):
        vectors = (AXES.to(dtype) * size).requires_grad_()
        for order in (0, 1, 3):
            lengths = edge_lengths(vectors)
            value = harmonics(vectors, lengths, order).pow(3).sum() + lengths.pow(3).sum() + lengths.sum()
            gradient = torch.autograd.grad(value, vectors, create_graph=True)[0]
            second = torch.autograd.grad(gradient.square().sum(), vectors, create_graph=True)[0]
            assert bool(value.isfinite() & gradient.isfinite().all() & second.isfinite().all())
            if size == 0.0:
                assert not bool(gradient.any() | second.any())

    def test_zero_vector_has_a_constant_and_no_direction(self):
        values = harmonics(torch.zeros(1, 3), torch.zeros(1), 3)
        assert values.tolist() == [[1.0] + [0.0] * 15]

    @pytest.mark.parametrize("lmax", range(MAX_LMAX + 1))
    def test_component_normalisation(self, lmax):
        vectors = self.vectors * 3
        squares = harmonics(vectors, edge_lengths(vectors), lmax).square()
        for degree in range(lmax + 1):
            total = squares[:, degree**2 : (degree + 1) ** 2].sum(1)
            torch.testing.assert_close(total, torch.full_like(total, 2 * degree + 1))


def energy(data: Batch | Data, pos: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
    """Smooth at the cutoff, and dependent on directions."""
    moved = Data(pos=pos, ptr=data.ptr, cell=cell, pbc=data.pbc)
    graph = build_graph(moved, 4.0, lmax=3)
    envelope = (1 - (graph.lengths / 4.0).square()).pow(4)
    field = (graph.harmonics * torch.linspace(-1, 1, 16, dtype=pos.dtype)).sum(1) * envelope
    node = torch.zeros(len(pos), dtype=pos.dtype).index_add(0, graph.receiver, field)
    return node.square().sum()


def test_forces_and_stress_are_finite_differences():
    data = crystals()
    pos, cell = data.pos.clone().requires_grad_(), data.cell.clone().requires_grad_()
    by_pos, by_cell = torch.autograd.grad(energy(data, pos, cell), (pos, cell))
    assert by_cell[0].abs().min() > 1e-6
    step = 1e-5
    with torch.no_grad():
        for _ in range(5):
            move, strain = torch.randn_like(pos), torch.randn_like(cell) * data.pbc[:, :, None]
            ahead = energy(data, pos + step * move, cell + step * strain)
            behind = energy(data, pos - step * move, cell - step * strain)
            expected = (by_pos * move).sum() + (by_cell * strain).sum()
            torch.testing.assert_close((ahead - behind) / (2 * step), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize("kind", [Batch, Data])
def test_compiles_without_a_break_when_edges_are_given(kind, trusted):
    torch.compiler.reset()
    data = with_edges(crystals(), 3.0)
    if not trusted:  # anybody's edges, in any order: the compiled code sorts them
        order = torch.randperm(data.edge_index.shape[1])
        data.edge_index, data.edge_shifts = data.edge_index[:, order], data.edge_shifts[order]
        data.edge_cutoff = None
    if kind is Data:
        data = Data(**data.to_dict())
    data.pos.requires_grad_()
    cutoff = 3.0 if trusted else None

    def function(data):
        graph = build_graph(data, cutoff, lmax=2)
        return torch.cat([graph.harmonics, graph.vectors, graph.lengths[:, None]], 1), graph.degree[graph.receiver]

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    (found, degree), (expected, expected_degree) = compiled(data), function(data)
    torch.testing.assert_close(found, expected)
    assert torch.equal(degree, expected_degree)
    gradients = [torch.autograd.grad(value.pow(3).sum(), data.pos)[0] for value in (found, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("sizes", [(4, 1, 3), (1,)])
def test_loops_are_the_last_edges_into_each_node(sizes):
    graph = build_graph(molecules(*sizes), lmax=2)
    graph = dataclasses.replace(graph, edge_attr=graph.lengths.unsqueeze(1))
    found = with_loops(graph)
    loop = found.sender == found.receiver
    assert torch.equal(found.sender[loop], torch.arange(graph.num_nodes))
    assert torch.equal(loop.nonzero().flatten(), found.row_pointers[1:] - 1)
    assert (found.receiver.diff() >= 0).all()
    assert torch.equal(found.row_pointers.diff(), graph.row_pointers.diff() + 1)
    assert torch.equal(found.degree, graph.degree + 1)
    for name in ("sender", "receiver", "vectors", "lengths", "harmonics", "edge_attr"):
        assert torch.equal(getattr(found, name)[~loop], getattr(graph, name)), name
    for name in ("vectors", "lengths", "edge_attr"):
        assert not getattr(found, name)[loop].any(), name
    alone = harmonics(torch.zeros(1, 3, dtype=torch.float64), torch.zeros(1, dtype=torch.float64), 2)
    assert torch.equal(found.harmonics[loop], alone.expand(graph.num_nodes, -1))


def test_empty_batch():
    graph = build_graph(Data(pos=torch.zeros(0, 3), ptr=torch.tensor([0])), 3.0, lmax=2)
    assert (graph.num_nodes, graph.num_graphs) == (0, 0)
    assert graph.harmonics.shape == (0, 9)


def test_graph_cannot_be_changed():
    graph = build_graph(molecules(2))
    with pytest.raises(dataclasses.FrozenInstanceError):
        graph.lengths = graph.lengths * 2


def test_points_in_a_plane_need_a_third_coordinate() -> None:
    with pytest.raises(TensorError, match=r"pos has shape \[5, 2\]; it must be \[N, 3\]"):
        build_graph(Data(pos=torch.rand(5, 2)), cutoff=1.0)


@pytest.mark.parametrize("edges", [{"cutoff": 1.5}, {"k": 2}, {}])
def test_whole_numbers_are_not_positions(edges) -> None:
    with pytest.raises(TensorError, match=r"pos has dtype torch.int64; it must be floating point"):
        build_graph(Data(pos=torch.arange(15).reshape(5, 3)), **edges)
