"""Every fault of an input is named with its graph, its atom and a remedy; what is legal passes."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch_geometric.data import Batch, Data

from geoeq.checks import check_edges, check_inputs
from geoeq.errors import (
    CellError,
    CoincidentAtomsError,
    EmptyGraphError,
    ExtentError,
    InputError,
    NonFiniteError,
    TensorError,
    UnknownElementError,
)
from geoeq.geometry.coincidence import coincident_atoms
from geoeq.geometry.lattice import lattice
from geoeq.graph import build_graph
from geoeq.models import EGNN, GraphScalar

DTYPES = (torch.float64, torch.float32)


def structures(*sizes: int, periodic: bool = False, dtype: torch.dtype = torch.float32) -> Batch:
    graphs = []
    for n in sizes or (4, 1, 3):
        graph = Data(z=torch.randint(1, 9, (n,)), pos=4 * torch.rand(n, 3, dtype=dtype))
        if periodic:
            graph.cell, graph.pbc = 4 * torch.eye(3, dtype=dtype)[None], torch.ones(1, 3, dtype=torch.bool)
        graphs.append(graph)
    return Batch.from_data_list(graphs)


def changed(data: Batch, **changes) -> Batch:
    data = data.clone()
    for name, value in changes.items():
        setattr(data, name, value)
    return data


class TestLegal:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("periodic", [False, True])
    def test_structures(self, periodic, dtype):
        check_inputs(structures(periodic=periodic, dtype=dtype), elements=range(1, 9), cutoff=5.0)

    def test_one_atom(self):
        check_inputs(Data(z=torch.tensor([8]), pos=torch.zeros(1, 3)), elements=[8], cutoff=3.0)

    def test_point_sets_without_elements_may_coincide(self):
        check_inputs(Data(pos=torch.zeros(5, 3), vel=torch.zeros(5, 3), charge=torch.ones(5)), cutoff=3.0)

    def test_the_same_place_in_two_graphs(self):
        data = structures(3, 3)
        data.pos[3:] = data.pos[:3]
        check_inputs(data)

    def test_slab_without_a_vector_in_the_open_direction(self):
        cell, pbc = torch.diag(torch.tensor([4.0, 4, 0]))[None], torch.tensor([[True, True, False]])
        check_inputs(Data(z=torch.tensor([6, 6]), pos=torch.tensor([[0.0, 0, 0], [0, 0, 4]]), cell=cell, pbc=pbc))

    def test_single_structure_without_the_graph_dimension(self):
        data = structures(3, periodic=True)
        check_inputs(Data(z=data.z, pos=data.pos, cell=data.cell[0], pbc=data.pbc[0]))

    def test_any_object_with_the_attributes(self):
        check_inputs(SimpleNamespace(z=torch.tensor([1]), pos=torch.zeros(1, 3)))

    def test_atoms_that_drifted_through_the_boundary_are_not_far(self):
        data = structures(3, periodic=True, dtype=torch.float64)
        data.pos[1, 2] += 4e8
        check_inputs(data, cutoff=3.0)


class TestTensors:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"pos": None}, r"pos is missing: .* \[N, 3\]"),
            ({"pos": torch.zeros(8, 3, dtype=torch.long)}, "pos is torch.int64; positions must be torch.float32 or"),
            ({"pos": torch.zeros(8, 3, dtype=torch.float16)}, "pos is torch.float16; positions must be"),
            ({"pos": torch.zeros(8, 2)}, r"pos has shape \[8, 2\]; it must be \[8, 3\]"),
            ({"pos": torch.zeros(())}, r"pos has shape \[\]; it must be \[0, 3\]"),
            ({"z": torch.ones(8)}, "z is torch.float32; atomic numbers must be torch.int64"),
            ({"z": [1] * 8}, "z is a list; atomic numbers must be torch.int64, in a tensor"),
            ({"z": torch.ones(7, dtype=torch.long)}, r"z has shape \[7\]; it must be \[8\], \[N\]"),
            ({"z": torch.ones(8, 1, dtype=torch.long)}, r"z has shape \[8, 1\]"),
            ({"vel": torch.ones(8)}, r"vel has shape \[8\]; it must be \[8, 3\]"),
            ({"vel": torch.ones(8, 3).double()}, "vel is torch.float64 and pos torch.float32: convert one"),
            ({"charge": torch.ones(3)}, r"charge has shape \[3\]; it must be \[8\], one row per node"),
            ({"x": torch.ones(3, 5)}, r"x has shape \[3, 5\]; it must be \[8, 5\]"),
            ({"x": [1.0]}, "x is a list; it must be a tensor"),
            ({"cell": torch.eye(3).double()[None].expand(3, 3, 3)}, "cell is torch.float64 and pos torch.float32"),
            ({"cell": torch.eye(3)[None]}, r"cell has shape \[1, 3, 3\]; for 3 graphs it must be \[G, 3, 3\]"),
            ({"cell": torch.zeros(3, 9)}, r"cell has shape \[3, 9\]"),
            ({"cell": torch.eye(3)[None].expand(3, 3, 3)}, "A cell is given without pbc"),
            ({"pbc": torch.ones(3, 3, dtype=torch.bool)}, "pbc is given without a cell"),
            ({"pbc": torch.ones(3, 3)}, "pbc is torch.float32; periodic directions must be torch.bool"),
            ({"pbc": torch.ones(3, dtype=torch.bool)}, r"pbc has shape \[3\]; for 3 graphs it must be \[G, 3\]"),
            ({"batch": torch.zeros(8)}, "batch is torch.float32; the graph of each node must be torch.int64"),
            ({"batch": torch.tensor([0, 0, 1, 0, 1, 2, 2, 2])}, "batch is not sorted"),
            ({"batch": torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])}, "batch and ptr contradict each other"),
            ({"ptr": torch.tensor([0, 4, 5, 9])}, r"ptr is \[0, 4, 5, 9\]; it must run from 0 to .* 8"),
            ({"ptr": torch.tensor([1, 4, 5, 8])}, r"ptr is \[1, 4, 5, 8\]; it must run from 0"),
            ({"ptr": torch.tensor([0, 4, 5, 8], dtype=torch.int32)}, "ptr is torch.int32; row pointers must be"),
            (
                {"z": torch.ones(8, dtype=torch.long, device="meta")},
                "z is on meta and pos on cpu: move all data together",
            ),
        ],
    )
    def test_dtype_shape_and_device(self, changes, message):
        with pytest.raises(TensorError, match=message):
            check_inputs(changed(structures(), **changes))

    def test_elements_need_z(self):
        with pytest.raises(TensorError, match="z is missing: the model needs the atomic number"):
            check_inputs(Data(pos=torch.zeros(2, 3)), elements=[1, 6])

    def test_every_error_is_an_input_error(self):
        with pytest.raises(InputError):
            check_inputs(changed(structures(), pos=None))


class TestEmpty:
    def test_no_atoms(self):
        with pytest.raises(EmptyGraphError, match=r"no atoms: pos has shape \[0, 3\]"):
            check_inputs(Data(z=torch.zeros(0, dtype=torch.long), pos=torch.zeros(0, 3)))

    def test_one_graph_of_a_batch(self):
        with pytest.raises(EmptyGraphError, match=r"Graph 1 has no atoms\. Leave empty structures out"):
            check_inputs(structures(4, 0, 3))
        data = structures(4, 3)
        with pytest.raises(EmptyGraphError, match="Graph 1 has no atoms"):
            check_inputs(Data(z=data.z, pos=data.pos, batch=data.batch * 2))


class TestNonFinite:
    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    @pytest.mark.parametrize("name", ["pos", "vel", "charge", "x"])
    def test_of_an_atom(self, name, value):
        data = changed(structures(), vel=torch.zeros(8, 3), charge=torch.zeros(8), x=torch.zeros(8, 2))
        data[name][6] = value
        with pytest.raises(
            NonFiniteError, match=rf"Graph 2, atom 1: {name} is .*(nan|inf).*\. Leave the structure out"
        ):
            check_inputs(data)

    def test_of_a_cell(self):
        data = structures(periodic=True)
        data.cell[1, 0, 0] = float("nan")
        with pytest.raises(NonFiniteError, match="Graph 1: cell is"):
            check_inputs(data)

    def test_of_an_edge(self):
        data = changed(structures(), edge_index=torch.zeros(2, 3, dtype=torch.long), edge_attr=torch.zeros(3, 2))
        data.edge_attr[2, 1] = float("inf")
        with pytest.raises(NonFiniteError, match="Edge 2: edge_attr is"):
            check_inputs(data)


class TestElements:
    @pytest.mark.parametrize("number", [0, -1, 119])
    @pytest.mark.parametrize("elements", [None, [1, 6]])
    def test_no_element(self, number, elements):
        data = structures(2, 3)
        data.z[:] = 6
        data.z[4] = number
        with pytest.raises(UnknownElementError, match=f"Graph 1, atom 2: z is {number}, which is not an element"):
            check_inputs(data, elements=elements)

    def test_not_of_the_model(self):
        data = changed(structures(2, 3), z=torch.tensor([6, 1, 8, 92, 92]))
        check_inputs(data)
        with pytest.raises(
            UnknownElementError,
            match=r"Graph 1, atom 0: the element O \(z = 8\) is not known. Known: H, C. Unknown in this input: O, U.",
        ):
            check_inputs(data, elements=[6, 1])


class TestCell:
    @pytest.mark.parametrize("direction", [0, 1, 2])
    def test_zero_vector(self, direction):
        data = structures(periodic=True)
        data.cell[2, direction] = 0.0
        message = f"Graph 2 is periodic along {'abc'[direction]}, .* Give the vector, or set pbc to False"
        with pytest.raises(CellError, match=message):
            check_inputs(data, cutoff=5.0)

    @pytest.mark.parametrize("rows", [[[1.0, 0, 0], [0, 1, 0], [1, 1, 0]], [[1.0, 0, 0], [2, 0, 0], [0, 0, 1]]])
    def test_no_volume(self, rows):
        data = structures(periodic=True)
        data.cell[1] = torch.tensor(rows)
        with pytest.raises(CellError, match=r"Graph 1: the periodic vectors of its cell .* span no volume"):
            check_inputs(data)

    def test_left_handed_and_skewed_cells_are_legal(self):
        data = structures(periodic=True)
        data.cell[0] = torch.tensor([[0.0, 4, 0], [4, 0, 0], [0, 0, 4]])
        data.cell[2] = torch.tensor([[4.0, 0, 0], [12, 4, 0], [-9, 7, 4]])
        check_inputs(data, cutoff=5.0)


class TestExtent:
    def test_an_atom_that_flew_away(self):
        data = structures()
        data.pos[7, 1] = 6e5
        check_inputs(data)
        check_inputs(data, cutoff=10.0)
        with pytest.raises(
            ExtentError, match=r"Graph 2 extends over 6e\+05 Å, more than 1e\+05 times the cutoff of 5.0"
        ):
            check_inputs(data, cutoff=5.0)


class TestCoincident:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("distance", [0.0, 1e-5, 5e-4])
    def test_in_the_open(self, distance, dtype):
        data = structures(4, 1, 30, dtype=dtype)
        data.pos[23] = data.pos[9] + torch.tensor([0.0, distance, 0.0])
        message = r"Graph 2, atom 4 and atom 18 are at the same place \(.* Å apart.*\). Remove one of them"
        with pytest.raises(CoincidentAtomsError, match=message):
            check_inputs(data)

    @pytest.mark.parametrize("shift", [(1, 0, 0), (0, -1, 0), (2, 5, -3)])
    def test_through_the_boundary(self, shift):
        data = structures(4, 1, 30, periodic=True, dtype=torch.float64)
        data.cell[2] += 0.7 * torch.rand(3, 3, dtype=torch.float64)
        data.pos[23] = data.pos[9] + torch.tensor(shift).double() @ data.cell[2] + 1e-4
        with pytest.raises(CoincidentAtomsError, match="Graph 2, atom 4 and atom 18 are at the same place"):
            check_inputs(data)

    def test_not_through_an_open_boundary(self):
        data = structures(4, 1, 30, periodic=True)
        data.pbc[2, 1] = False
        data.pos[23] = data.pos[9] + data.cell[2, 1]
        check_inputs(data)
        data.pos[23] = data.pos[9] + data.cell[2, 2]
        with pytest.raises(CoincidentAtomsError):
            check_inputs(data)

    @pytest.mark.parametrize("periodic", [False, True])
    def test_as_trying_all_pairs_does(self, periodic):
        """On structures so dense that most atoms have others nearly as close as the distance asked for."""
        outcomes = set()
        for seed in range(40):
            torch.manual_seed(seed)
            positions = torch.rand(30, 3, dtype=torch.float64)
            batch = torch.arange(30) // 10
            cell = torch.eye(3, dtype=torch.float64).expand(3, 3, 3)
            cells = lattice(cell, torch.ones(3, 3, dtype=torch.bool)) if periodic else None
            difference = positions[:, None] - positions[None]
            difference = difference - difference.round() if periodic else difference
            lengths = difference.norm(dim=-1).masked_fill(batch[:, None] != batch[None], torch.inf)
            expected = bool((lengths.fill_diagonal_(torch.inf) < 0.1).any())
            found = coincident_atoms(positions, batch, cells, 0.1)
            assert (found is not None) == expected
            if found is not None:
                first, second, distance = found
                assert abs(float(lengths[first, second]) - distance) < 1e-12
                assert distance < 0.1
            outcomes.add(expected)
        assert outcomes == {True, False}

    def test_perfect_crystals_are_looked_through_quickly(self):
        """Rows and planes of atoms must not be close in what is sorted."""
        places = torch.cartesian_prod(*[torch.arange(12)] * 3).double() * 2.0
        cells = lattice(24 * torch.eye(3, dtype=torch.float64)[None], torch.ones(1, 3, dtype=torch.bool))
        batch = torch.zeros(len(places), dtype=torch.long)
        for periodic in (None, cells):
            assert coincident_atoms(places, batch, periodic, 1e-3) is None
            twice = torch.cat([places, places[700:701] + 48.0 * (periodic is not None)])
            assert coincident_atoms(twice, torch.zeros(len(twice), dtype=torch.long), periodic, 1e-3)[:2] == (700, 1728)


class TestCoincidentByEdges:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("distance", [0.0, 1e-5, 5e-4])
    def test_in_the_open(self, distance, dtype):
        data = structures(4, 1, 30, dtype=dtype)
        check_edges(build_graph(data, 3.0))
        data.pos[23] = data.pos[9] + torch.tensor([0.0, distance, 0.0])
        message = r"Graph 2, atom 4 and atom 18 are at the same place \(.* Å apart.*\). Remove one of them"
        with pytest.raises(CoincidentAtomsError, match=message):
            check_edges(build_graph(data, 3.0))

    @pytest.mark.parametrize("shift", [(1, 0, 0), (2, 5, -3)])
    def test_through_the_boundary(self, shift):
        data = structures(4, 1, 30, periodic=True, dtype=torch.float64)
        data.pos[23] = data.pos[9] + torch.tensor(shift).double() @ data.cell[2] + 1e-4
        with pytest.raises(CoincidentAtomsError, match="Graph 2, atom 4 and atom 18 are at the same place"):
            check_edges(build_graph(data, 3.0))
        data.pbc[2] = False
        check_edges(build_graph(data, 3.0))

    def test_points_without_elements_may_coincide(self):
        data = structures(4)
        data.pos[1] = data.pos[0]
        graph = build_graph(data, 3.0)
        with pytest.raises(CoincidentAtomsError):
            check_edges(graph)
        check_edges(replace(graph, numbers=None))

    def test_no_edges(self):
        check_edges(build_graph(structures(1), 3.0))

    def test_a_model_with_a_cutoff_takes_its_edges_and_one_without_searches(self, monkeypatch):
        searched = []
        monkeypatch.setattr("geoeq.checks.coincident_atoms", lambda *given: searched.append(given))
        data = structures(4, 6)
        twice = changed(data, pos=data.pos.clone())
        twice.pos[6] = twice.pos[5]
        for cutoff in (3.0, None):
            model = EGNN([GraphScalar("energy")], width=4, layers=1, cutoff=cutoff)
            model(data)
            assert len(searched) == (cutoff is None)
            if cutoff is not None:
                with pytest.raises(CoincidentAtomsError, match="Graph 1, atom 1 and atom 2"):
                    model(twice)


def test_nothing_is_checked_while_compiling():
    torch.compiler.reset()

    def function(data):
        check_inputs(data)
        return data.pos.sum()

    data = changed(structures(), pos=torch.full((8, 3), float("nan")))
    assert torch.compile(function, fullgraph=True, backend="aot_eager")(data).isnan()
    with pytest.raises(NonFiniteError):
        function(data)


@pytest.mark.gpu
def test_on_a_gpu():
    data = structures(periodic=True).cuda()
    check_inputs(data, elements=range(1, 9), cutoff=5.0)
    data.pos[6] = data.pos[5]
    with pytest.raises(CoincidentAtomsError, match="Graph 2, atom 0 and atom 1"):
        check_inputs(data)
    data.pos[6] = float("nan")
    with pytest.raises(NonFiniteError, match="Graph 2, atom 1"):
        check_inputs(data)
