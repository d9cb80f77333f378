"""Structures of catalysts, from ASE's Atoms or from the pickled Data objects of PyG.

Positions, cells and forces are stored in float32, as in the published LMDB files; energies in float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from geoeq.data.pickles import Bag
from geoeq.data.preparation.chunks import Frame
from geoeq.data.ragged import Array
from geoeq.errors import DataError

__all__ = ["Task", "fixed_atoms", "frames_of", "make_frame"]

#: Number of tags of an atom: 0 below the surface, 1 at the surface, 2 in the adsorbate.
_NUM_TAGS = 3

#: Earlier names of attributes of Data.
_OLD_NAMES = {"y": "energy", "force": "forces", "z": "atomic_numbers"}


@dataclass(frozen=True)
class Task:
    """The quantities to read from a structure.

    Attributes:
        relaxed: whether to read energies and positions before and after a relaxation, instead of energy and forces.
        energy: kind of the energies in LMDB files and pickles, "adsorption" or "total"; None if it was not specified.
        references: "random" and the number of a system -> total energy minus adsorption energy, eV.
    """

    relaxed: bool
    energy: str | None = None
    references: Mapping[str, float] | None = None

    def energies(self, values: Mapping[str, Any], system: Any) -> dict[str, Any]:
        """Return the columns of energies.

        Args:
            values: "energy", or "initial_energy" and "relaxed_energy", from the file.
            system: number of the system.

        Raises:
            ValueError: the kind of the energies was not specified, or the system has no reference.
        """
        if self.energy is None:
            raise ValueError("specify in the options of the card whether 'energy' is 'adsorption' or 'total'")
        columns = {f"{self.energy}_energy" if name == "energy" else name: value for name, value in values.items()}
        if self.references is None:
            return columns
        if self.energy != "adsorption":
            raise ValueError("references require adsorption energies, not total energies")
        shift = self.references.get(f"random{system}")
        if shift is None:
            raise ValueError(f"the references lack 'random{system}'")
        totals = {"energy": "total_energy", "initial_energy": "initial_total_energy"}
        return columns | {totals.get(name, "relaxed_total_energy"): value + shift for name, value in values.items()}


def make_frame(
    where: str,
    atoms: Mapping[str, Any],
    energies: Mapping[str, Any],
    vectors: Mapping[str, Any],
    system: Any = None,
    frame: Any = None,
) -> Frame:
    """Return a structure of n atoms after checking it.

    Args:
        where: file and index, for messages.
        atoms: "pos" [n, 3] Å, "atomic_numbers" [n], "cell" [3, 3] or [1, 3, 3] Å, "tags" [n] and "fixed" [n] (whether
            an atom is fixed in relaxations), and "pbc" [3] if it is not periodic in all directions.
        energies: columns of the structure, eV.
        vectors: columns of the atoms, [n, 3] each.
        system: published number of the system; None is stored as -1.
        frame: number of the frame in its relaxation; None is stored as -1.

    Raises:
        DataError: an array is missing, has another shape, or contains invalid numbers.
    """
    try:
        count = len(atoms["pos"])
        numbers, tags = (_array(atoms[name], np.int64, count) for name in ("atomic_numbers", "tags"))
        if np.any((tags < 0) | (tags >= _NUM_TAGS)):
            raise ValueError("a tag is not 0, 1 or 2")
        if np.any((numbers < 1) | (numbers > np.iinfo(np.uint8).max)):
            raise ValueError("an atomic number is invalid")
        return Frame(
            positions=_array(atoms["pos"], np.float32, count, 3),
            numbers=numbers.astype(np.uint8),
            of_graph={name: float(_single(value)) for name, value in energies.items()},
            of_nodes={name: _array(values, np.float32, count, 3) for name, values in vectors.items()},
            nodes={"tags": tags.astype(np.uint8), "fixed": _array(atoms["fixed"], np.int64, count) != 0},
            graphs={"sid": _identifier(system), "fid": _identifier(frame)},
            cell=_array(np.reshape(_numbers(atoms["cell"]), (-1, 3)), np.float32, 3, 3),
            pbc=_array(atoms.get("pbc", np.ones(3)), np.int64, 3) != 0,
            where=where,
        )
    except KeyError as error:
        raise DataError(f"{where}: it has no {error}.") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{where}: it is not a structure of this data set: {error}.") from error


def fixed_atoms(where: str, count: int, constraints: list[Any]) -> Array:
    """Return which atoms are fixed by ASE's constraints, [n].

    Raises:
        DataError: there is a constraint other than FixAtoms.
    """
    fixed = np.zeros(count, dtype=bool)
    for constraint in constraints:
        known = constraint if isinstance(constraint, dict) else constraint.todict()
        indices = known.get("kwargs", {}).get("indices")
        if known.get("name") != "FixAtoms" or indices is None:
            raise DataError(f"{where}: it has a constraint other than FixAtoms: {str(known.get('name'))[:40]}.")
        fixed[np.asarray(indices, dtype=np.int64)] = True
    return fixed


def frames_of(content: Any, where: str, task: Task) -> Iterator[Frame]:
    """Yield the structures of PyG's Data or Batch, or of a list of them.

    Args:
        content: content of a pickle.
        where: file and index, for messages.
        task: quantities to read.

    Raises:
        DataError: the content is something else, or an attribute is missing or has another shape.
    """
    if isinstance(content, (list, tuple)):
        for index, item in enumerate(content):
            yield from _structures(item, f"{where}: structure {index}", task)
    else:
        yield from _structures(content, where, task)


def _structures(bag: Any, where: str, task: Task) -> Iterator[Frame]:
    if not isinstance(bag, Bag):
        raise DataError(f"{where}: it contains a {type(bag).__name__} instead of Data of PyG.")
    values = {_OLD_NAMES.get(name, name): value for name, value in bag.attributes().items()}
    try:
        counts = np.reshape(_numbers(values["natoms"] if "natoms" in values else len(values["pos"])), -1)
        ends = np.cumsum(counts, dtype=np.int64)
        if np.any(counts < 1) or ends[-1] != len(values["pos"]):
            raise ValueError("the numbers of atoms do not add up")
    except KeyError as error:
        raise DataError(f"{where}: it has no {error}.") from error
    except (TypeError, ValueError, IndexError) as error:
        raise DataError(f"{where}: it is not a structure of this data set: {error}.") from error
    for graph, (count, end) in enumerate(zip(counts.tolist(), ends.tolist())):
        yield _structure(values, where, task, graph, len(counts), slice(end - count, end))


def _structure(values: Mapping[str, Any], where: str, task: Task, graph: int, graphs: int, rows: slice) -> Frame:
    def of_graph(name: str) -> Any:
        value = values[name]
        if np.ndim(value) == 0 and not isinstance(value, str):
            return value
        if len(value) != graphs:
            raise ValueError(f"'{name}' has {len(value)} structures instead of {graphs}")
        return value[graph]

    try:
        atoms = {name: values[name][rows] for name in ("pos", "atomic_numbers", "tags", "fixed")}
        atoms["cell"] = np.reshape(_numbers(values["cell"]), (graphs, 3, 3))[graph]
        system = of_graph("sid") if "sid" in values else None
        names = {"y_init": "initial_energy", "y_relaxed": "relaxed_energy"} if task.relaxed else {"energy": "energy"}
        # OC22 does not give the energy before the relaxation.
        published = {new: of_graph(old) for old, new in names.items() if old != "y_init" or old in values}
        energies = task.energies(published, None if system is None else int(_single(system)))
        vectors = {"relaxed_positions": "pos_relaxed"} if task.relaxed else {"forces": "forces"}
        columns = {name: values[attribute][rows] for name, attribute in vectors.items()}
        frame = of_graph("fid") if "fid" in values else None
    except KeyError as error:
        raise DataError(f"{where}: it has no {error}.") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{where}: it is not a structure of this data set: {error}.") from error
    return make_frame(where, atoms, energies, columns, system, frame)


def _numbers(values: Any) -> Array:
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise TypeError("there is text instead of numbers")
    return array


def _array(values: Any, dtype: type[np.generic], *shape: int) -> Array:
    array = _numbers(values)
    if array.shape != shape:
        raise ValueError(f"an array has the shape {list(array.shape)} instead of {list(shape)}")
    with np.errstate(over="ignore", invalid="ignore"):
        converted = array.astype(dtype)
    if array.dtype.kind == "f" and not (np.isfinite(array).all() and np.isfinite(converted).all()):
        raise ValueError("a number is not finite")
    return converted


def _single(value: Any) -> Any:
    """Return the only number in an array, or the number itself."""
    flat = np.reshape(_numbers(value), -1)
    if len(flat) != 1 or not np.isfinite(flat[0]):
        raise ValueError("a value is not a single finite number")
    return flat[0]


def _identifier(number: Any) -> Array:
    return np.asarray(-1 if number is None else _single(number)).astype(np.int64)
