"""Validation of structures, before a network turns invalid input into NaN."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from geoeq.errors import (
    CoincidentAtomsError,
    EmptyGraphError,
    ExtentError,
    InputError,
    NonFiniteError,
    TensorError,
    UnknownElementError,
)
from geoeq.geometry.coincidence import coincident_atoms
from geoeq.geometry.lattice import Lattice, cell_error, cell_faults, extents, unchecked_lattice
from geoeq.pointers import batch_from_ptr, graph_pointers

__all__ = ["LAST_ELEMENT", "check_edges", "check_inputs"]

#: Atoms closer than this count as one atom given twice: nuclei never come so close.
COINCIDENT = 1e-3  # Å

#: Ratio of extent to cutoff above which the unit must be wrong, or an atom has flown away.
EXTENT_LIMIT = 1e5

#: Atomic number of the last element.
LAST_ELEMENT = 118

#: Tensors that must have the dtype of the positions if they are floating point.
FLOAT_TENSORS = ("cell", "vel", "charge", "x", "edge_attr", "edge_shifts")

#: A mask over nodes, graphs or edges, and a function that returns the error of an entry.
Fault = tuple[Tensor, Callable[[int], InputError]]


def check_inputs(
    data: Any, *, elements: Sequence[int] | None = None, cutoff: float | None = None, coincident: bool = True
) -> None:
    """Raise an error if a structure, or one of a batch, is invalid; the message says which one and what to do.

    Isolated atoms, single-atom molecules and point sets without ``z`` (whose points may coincide) are valid.
    Nothing is checked while torch.compile traces the function.

    Args:
        data: PyG Data or Batch, or any object with such attributes.
        elements: known atomic numbers; None for the whole periodic table.
        cutoff: cutoff radius in Å; if given, the extent of each graph is checked too.
        coincident: whether to search for coincident atoms. Use False if edges within a cutoff are computed next:
            ``check_edges`` then finds them with less work.

    Raises:
        TensorError: a tensor is missing, or has the wrong dtype, shape or device.
        EmptyGraphError: a graph has no atoms.
        NonFiniteError: a value is NaN or infinite.
        UnknownElementError: an atomic number is not among the known ones.
        CellError: a periodic direction has no cell vector, or the cell has no volume.
        ExtentError: a graph extends over more than 100 000 cutoffs.
        CoincidentAtomsError: two atoms coincide, or are periodic images of each other.
    """
    if torch.compiler.is_compiling():
        return
    _check_tensors(data)
    where = _check_graphs(data)
    numbers, periodic = _get(data, "z"), None
    faults = _non_finite(data, where)
    if numbers is not None:
        faults.append(_unknown_elements(numbers, elements, where))
    elif elements is not None:
        raise TensorError("z is missing: the model needs the atomic number of every atom, [N] int64.")
    if _get(data, "pbc") is not None and bool(data.pbc.any()):
        cell, pbc = data.cell.reshape(-1, 3, 3), data.pbc.reshape(-1, 3)
        faults.append((cell_faults(cell, pbc), lambda graph: cell_error(cell, pbc, graph)))
        periodic = unchecked_lattice(cell, pbc)
    if cutoff is not None:
        faults.append(_too_large(data.pos, where, periodic, cutoff))
    _raise_first(faults)
    if coincident and numbers is not None:
        pair = coincident_atoms(data.pos, where.batch, periodic, COINCIDENT)
        if pair is not None:
            raise _coincident_error(where, *pair)


def check_edges(graph: Any) -> None:
    """Raise an error if two atoms coincide, given a graph that contains all edges within a cutoff.

    Nothing is checked for points without atomic numbers, or while torch.compile traces the function.

    Args:
        graph: the Graph.

    Raises:
        CoincidentAtomsError: two atoms coincide, or are periodic images of each other.
    """
    if torch.compiler.is_compiling() or graph.numbers is None:
        return
    lengths = graph.lengths.detach()
    near = lengths < COINCIDENT
    if not bool(near.any()):
        return
    # An atom does not coincide with its own image.
    lengths = lengths.masked_fill(~near | (graph.sender == graph.receiver), torch.inf)
    edge = int(lengths.argmin())
    if bool(lengths[edge] < COINCIDENT):
        first, second = sorted((int(graph.sender[edge]), int(graph.receiver[edge])))
        raise _coincident_error(Where(graph.ptr, graph.batch), first, second, float(lengths[edge]))


class Where(NamedTuple):
    """The graph of each node, to locate faults in error messages."""

    ptr: Tensor
    batch: Tensor

    def atom(self, node: int) -> str:
        """Return the graph of a node and its index in that graph, as text."""
        graph = int(self.batch[node])
        return f"Graph {graph}, atom {node - int(self.ptr[graph])}"


def _get(data: Any, name: str) -> Any:
    return getattr(data, name, None)


def _raise_first(faults: list[Fault]) -> None:
    # A single synchronisation with the device if there are no faults.
    if faults and bool(torch.stack([mask.any() for mask, _ in faults]).any()):
        mask, error = next(fault for fault in faults if bool(fault[0].any()))
        raise error(int(mask.nonzero()[0, 0]))


def _check_tensors(data: Any) -> None:
    """Check dtypes, shapes and devices."""
    pos = _get(data, "pos")
    if not isinstance(pos, Tensor):
        raise TensorError("pos is missing: add the positions, [N, 3] in Å.")
    if pos.dtype not in (torch.float32, torch.float64):
        raise TensorError(
            f"pos is {pos.dtype}; positions must be torch.float32 or torch.float64 (use data.pos.float())."
        )
    num_nodes = pos.shape[0] if pos.dim() else 0
    _check_shape(pos, "pos", (num_nodes, 3), "[N, 3]")
    _check_type(data, "z", (torch.int64, torch.int32), "atomic numbers must be torch.int64")
    _check_type(data, "batch", (torch.int64,), "the graph of each node must be torch.int64")
    _check_type(data, "ptr", (torch.int64,), "row pointers must be torch.int64")
    _check_type(data, "pbc", (torch.bool,), "periodic directions must be torch.bool")
    for name in FLOAT_TENSORS:
        tensor = _get(data, name)
        if tensor is None:
            continue
        if not isinstance(tensor, Tensor):
            raise TensorError(f"{name} is a {type(tensor).__name__}; it must be a tensor.")
        if tensor.is_floating_point() and tensor.dtype != pos.dtype:
            raise TensorError(f"{name} is {tensor.dtype} and pos {pos.dtype}: convert one to the dtype of the other.")
        _check_device(tensor, name, pos)
    for name in ("z", "batch"):
        if _get(data, name) is not None:
            _check_shape(_get(data, name), name, (num_nodes,), "[N]")
    for name in ("charge", "x"):
        if _get(data, name) is not None:
            _check_shape(_get(data, name), name, (num_nodes, *_get(data, name).shape[1:]), "one row per node")
    if _get(data, "vel") is not None:
        _check_shape(data.vel, "vel", (num_nodes, 3), "[N, 3]")


def _check_type(data: Any, name: str, dtypes: tuple[torch.dtype, ...], what: str) -> None:
    tensor = _get(data, name)
    if tensor is None:
        return
    if not isinstance(tensor, Tensor):
        raise TensorError(f"{name} is a {type(tensor).__name__}; {what}, in a tensor.")
    if tensor.dtype not in dtypes:
        raise TensorError(f"{name} is {tensor.dtype}; {what}.")
    _check_device(tensor, name, data.pos)


def _check_device(tensor: Tensor, name: str, pos: Tensor) -> None:
    if tensor.device != pos.device:
        raise TensorError(
            f"{name} is on {tensor.device} and pos on {pos.device}: move all data together with data.to(..)."
        )


def _check_shape(tensor: Tensor, name: str, shape: tuple[int, ...], what: str) -> None:
    if tuple(tensor.shape) != shape:
        raise TensorError(f"{name} has shape {list(tensor.shape)}; it must be {list(shape)}, {what}.")


def _check_graphs(data: Any) -> Where:
    """Check that row pointers, batch, cell and pbc agree and no graph is empty; return the graph of each node."""
    num_nodes = data.pos.shape[0]
    if num_nodes == 0:
        raise EmptyGraphError("There are no atoms: pos has shape [0, 3]. Leave empty structures out.")
    index = _get(data, "batch")
    if index is not None and bool((index.diff() < 0).any() | (index[0] < 0)):
        raise TensorError("batch is not sorted: the nodes of each graph must be consecutive (sort them by batch).")
    ptr = graph_pointers(data)
    if len(ptr) < 2 or bool((ptr[0] != 0) | (ptr[-1] != num_nodes)):
        raise TensorError(f"ptr is {ptr.tolist()}; it must run from 0 to the number of nodes, {num_nodes}.")
    empty = (ptr.diff() <= 0).nonzero()
    if len(empty):
        raise EmptyGraphError(f"Graph {int(empty[0, 0])} has no atoms. Leave empty structures out of the batch.")
    batch = batch_from_ptr(ptr, num_nodes)
    if index is not None and not torch.equal(index, batch):
        raise TensorError("batch and ptr contradict each other: remove one of them, or create both with PyG's Batch.")
    for name, entries, what in (("cell", 9, "[G, 3, 3]"), ("pbc", 3, "[G, 3]")):
        tensor, num_graphs = _get(data, name), len(ptr) - 1
        if tensor is not None and (tensor.numel() != entries * num_graphs or tensor.shape[-1:] != (3,)):
            raise TensorError(f"{name} has shape {list(tensor.shape)}; for {num_graphs} graphs it must be {what}.")
    if _get(data, "cell") is not None and _get(data, "pbc") is None:
        raise TensorError("A cell is given without pbc: add the periodic directions, [G, 3] bool.")
    if _get(data, "pbc") is not None and _get(data, "cell") is None and bool(data.pbc.any()):
        raise TensorError("pbc is given without a cell: add the cell vectors, [G, 3, 3] in Å.")
    return Where(ptr, batch)


def _non_finite(data: Any, where: Where) -> list[Fault]:
    """Return the faults of values of nodes, cells and edges that are NaN or infinite."""

    def fault(name: str, rows: Tensor, entry: Callable[[int], str]) -> Fault:
        def error(row: int) -> InputError:
            return NonFiniteError(
                f"{entry(row)}: {name} is {rows[row].tolist()}. Leave the structure out, or find out where "
                f"the value became NaN or infinite."
            )

        return ~rows.isfinite().reshape(rows.shape[0], -1).all(1), error

    faults = [fault("pos", data.pos, where.atom)]
    faults += [
        fault(name, _get(data, name), where.atom) for name in ("vel", "charge", "x") if _get(data, name) is not None
    ]
    if _get(data, "cell") is not None:
        faults.append(fault("cell", data.cell.reshape(-1, 3, 3), lambda graph: f"Graph {graph}"))
    if _get(data, "edge_attr") is not None:
        faults.append(fault("edge_attr", data.edge_attr, lambda edge: f"Edge {edge}"))
    return faults


def _unknown_elements(numbers: Tensor, elements: Sequence[int] | None, where: Where) -> Fault:
    def error(node: int) -> InputError:
        from ase.data import chemical_symbols

        def name(number: int) -> str:
            return chemical_symbols[number] if 0 < number <= LAST_ELEMENT else str(number)

        number = int(numbers[node])
        if not 0 < number <= LAST_ELEMENT:
            return UnknownElementError(
                f"{where.atom(node)}: z is {number}, which is not an element: atomic numbers are 1 to {LAST_ELEMENT}."
            )
        others = ", ".join(name(other) for other in numbers[unknown].unique().tolist())
        known = ", ".join(name(other) for other in sorted(elements or ()))
        return UnknownElementError(
            f"{where.atom(node)}: the element {name(number)} (z = {number}) is not known. Known: {known}. Unknown in "
            f"this input: {others}. Use a model whose training set has these elements, or leave the structure out."
        )

    unknown = (numbers < 1) | (numbers > LAST_ELEMENT)
    if elements is not None:
        unknown = ~torch.isin(numbers, torch.tensor([*elements], device=numbers.device))
    return unknown, error


def _too_large(positions: Tensor, where: Where, periodic: Lattice | None, cutoff: float) -> Fault:
    extent = extents(positions, where.batch, len(where.ptr) - 1, periodic)  # [G]

    def error(graph: int) -> InputError:
        return ExtentError(
            f"Graph {graph} extends over {float(extent[graph]):.3g} Å, more than {EXTENT_LIMIT:.0e} times the cutoff "
            f"of {cutoff} Å. Check that its positions are in Å and that no atom has flown away."
        )

    return extent > EXTENT_LIMIT * cutoff, error


def _coincident_error(where: Where, first: int, second: int, distance: float) -> CoincidentAtomsError:
    other = second - int(where.ptr[where.batch[second]])
    return CoincidentAtomsError(
        f"{where.atom(first)} and atom {other} are at the same place ({distance:.1e} Å apart, periodic images "
        f"included). Remove one of them, and check that atoms on the cell boundary are not listed twice."
    )
