"""Convert records to the named arrays of a cache, in the units of geoeq, and check the structures."""

from __future__ import annotations

import numpy as np
import torch

from geoeq.checks import check_inputs
from geoeq.data.card import Card
from geoeq.data.dataset import Dataset
from geoeq.data.ragged import Array
from geoeq.data.records import Records
from geoeq.errors import DataError, InputError, unknown_name
from geoeq.fields import FIELDS

__all__ = ["check_structures", "checked_arrays", "to_arrays"]

_CHECKED_AT_ONCE = 512


def to_arrays(card: Card, records: Records, where: str | None = None) -> dict[str, Array]:
    """Return the records as named arrays, with targets in the units of geoeq.

    Quantities of structures are stored in float64; those of atoms in float32 if the file has float32.

    Args:
        card: card of the data set.
        records: records that its reader returned.
        where: data set and file, for messages; the name of the card if None.

    Raises:
        DataError: the arrays do not fit together, or a column of the card is missing.
    """
    where = where or card.name
    records.check(where)
    arrays: dict[str, Array] = {"positions": records.positions, "ptr": np.asarray(records.ptr, dtype=np.int64)}
    optional = {"numbers": records.numbers, "cell": records.cell, "pbc": records.pbc}
    arrays |= {name: array for name, array in optional.items() if array is not None}
    arrays |= {f"node.{name}": array for name, array in records.nodes.items()}
    arrays |= {f"graph.{name}": array for name, array in records.graphs.items()}
    if "total_charge" in records.columns:  # an input of models, whether or not it is a target as well
        arrays["graph.total_charge"] = np.asarray(records.columns["total_charge"], dtype=np.float64)
    if records.edges is not None:
        arrays |= {f"edge.{name}": array for name, array in records.edges.arrays().items()}
    for name, target in card.targets.items():
        if target.column not in records.columns:
            raise DataError(f"{where}: targets.{name}: {unknown_name('column', target.column, records.columns)}")
        column, of_nodes = records.columns[target.column], FIELDS[name].level == "node"
        dtype = np.float32 if of_nodes and column.dtype == np.float32 else np.float64
        values: Array = np.multiply(column, target.to_internal(name), dtype=dtype)
        rows = len(records.positions) if of_nodes else len(records.ptr) - 1
        if len(values) != rows:
            raise DataError(
                f"{where}: targets.{name}: the column '{target.column}' has {len(values)} rows, but a quantity per "
                f"{FIELDS[name].level} needs {rows}."
            )
        arrays[f"target.{name}"] = values
    return arrays


def checked_arrays(card: Card, records: Records, where: str | None = None, first: int = 0) -> dict[str, Array]:
    """Return ``to_arrays`` of the records after checking all structures.

    Args:
        card: card of the data set.
        records: records that its reader returned, or a chunk of them.
        where: data set and file, for messages; the name of the card if None.
        first: index of the first structure, for messages.

    Raises:
        DataError: the arrays do not fit together, or a column of the card is missing.
        InputError: a structure is invalid.
    """
    arrays = to_arrays(card, records, where)
    check_structures(Dataset(card, arrays), where, first)
    return arrays


def check_structures(dataset: Dataset, where: str | None = None, first: int = 0) -> None:
    """Check that all structures are valid.

    Args:
        dataset: the structures.
        where: data set and file, for messages; the name of the data set if None.
        first: index of the first structure, for messages.

    Raises:
        InputError: a structure is invalid; the message gives its index, counted from 0, and the atom.
    """
    for start in range(0, len(dataset), _CHECKED_AT_ONCE):
        indices = range(start, min(start + _CHECKED_AT_ONCE, len(dataset)))
        try:
            check_inputs(dataset.batch(indices, dtype=torch.float64))
        except InputError as error:
            for index in indices:
                _check_structure(dataset, index, f"{where or dataset.card.name}: structure {first + index}")
            raise type(error)(f"{where or dataset.card.name}: {error}") from error  # only their batch is invalid


def _check_structure(dataset: Dataset, index: int, where: str) -> None:
    try:
        check_inputs(dataset.batch([index], dtype=torch.float64))
    except InputError as error:
        raise type(error)(f"{where}: {error}") from error
