"""One structure of a catalyst, from ASE's Atoms, or PyG's Data as a pickle holds it.

Positions, cells and forces are kept in float32, as the published LMDB files hold them; energies in float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from geoeq.data.pickles import Bag
from geoeq.data.prepare.chunks import Frame
from geoeq.data.ragged import Array
from geoeq.errors import DataError

__all__ = ["Task", "fixed_atoms", "from_bag", "make_frame"]

#: What is known of each atom: 0 below the surface, 1 at the surface, 2 of the adsorbate.
_NUM_TAGS = 3

#: Names that attributes of Data have had.
_OLD_NAMES = {"y": "energy", "force": "forces", "z": "atomic_numbers"}


@dataclass(frozen=True)
class Task:
    """What is taken from a structure, and under which name.

    Attributes:
        relaxed: energies and positions before and after a relaxation; else energy and forces.
        energy: what the energies of LMDB files and pickles are, "adsorption" or "total"; None if that was not told.
        references: "random" and the number of a system -> its total energy less its adsorption energy, eV.
    """

    relaxed: bool
    energy: str | None = None
    references: Mapping[str, float] | None = None

    def energies(self, found: Mapping[str, Any], system: Any) -> dict[str, Any]:
        """The columns of energies.

        Args:
            found: "energy", or "initial_energy" and "relaxed_energy", as the file has them.
            system: the number of the system.

        Raises:
            ValueError: it was not told what the energies are, or there is no reference of this system.
        """
        if self.energy is None:
            raise ValueError("say in the options of the card whether its 'energy' is 'adsorption' or 'total'")
        columns = {f"{self.energy}_energy" if name == "energy" else name: value for name, value in found.items()}
        if self.references is None:
            return columns
        if self.energy != "adsorption":
            raise ValueError("references are for adsorption energies, not for total ones")
        shift = self.references.get(f"random{system}")
        if shift is None:
            raise ValueError(f"the references have no 'random{system}'")
        totals = {"energy": "total_energy", "initial_energy": "initial_total_energy"}
        return columns | {totals.get(name, "relaxed_total_energy"): value + shift for name, value in found.items()}


def make_frame(
    where: str,
    atoms: Mapping[str, Any],
    energies: Mapping[str, Any],
    vectors: Mapping[str, Any],
    system: Any = None,
    frame: Any = None,
) -> Frame:
    """A structure of n atoms, checked.

    Args:
        where: the file and the place in it, for messages.
        atoms: "pos" [n, 3] Å, "atomic_numbers" [n], "cell" [3, 3] or [1, 3, 3] Å, "tags" [n] and "fixed" [n] (whether
            an atom is held in relaxations), and "pbc" [3] if it is not periodic in all directions.
        energies: columns of the structure, eV.
        vectors: columns of the atoms, [n, 3] each.
        system: the number that the publication gives the system; -1 stands for none.
        frame: that of the frame in its relaxation.

    Raises:
        DataError: something is missing, of another shape, or not a number.
    """
    try:
        count = len(atoms["pos"])
        numbers, tags = (_array(atoms[name], np.int64, count) for name in ("atomic_numbers", "tags"))
        if np.any((tags < 0) | (tags >= _NUM_TAGS)):
            raise ValueError("a tag is none of 0, 1 and 2")
        if np.any((numbers < 1) | (numbers > np.iinfo(np.uint8).max)):
            raise ValueError("an atomic number is none")
        return Frame(
            positions=_array(atoms["pos"], np.float32, count, 3),
            numbers=numbers.astype(np.uint8),
            of_graph={name: float(_single(value)) for name, value in energies.items()},
            of_nodes={name: _array(values, np.float32, count, 3) for name, values in vectors.items()},
            nodes={"tags": tags.astype(np.uint8), "fixed": _array(atoms["fixed"], np.int64, count) != 0},
            graphs={"sid": _named(system), "fid": _named(frame)},
            cell=_array(np.reshape(_numbers(atoms["cell"]), (-1, 3)), np.float32, 3, 3),
            pbc=_array(atoms.get("pbc", np.ones(3)), np.int64, 3) != 0,
            where=where,
        )
    except KeyError as error:
        raise DataError(f"{where}: it has no {error}.") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{where}: it is no structure of this data set: {error}.") from error


def fixed_atoms(where: str, count: int, constraints: list[Any]) -> Array:
    """Which atoms ASE's constraints hold, [n].

    Raises:
        DataError: there is another constraint than FixAtoms.
    """
    fixed = np.zeros(count, dtype=bool)
    for constraint in constraints:
        known = constraint if isinstance(constraint, dict) else constraint.todict()
        indices = known.get("kwargs", {}).get("indices")
        if known.get("name") != "FixAtoms" or indices is None:
            raise DataError(f"{where}: it has another constraint than FixAtoms: {str(known.get('name'))[:40]}.")
        fixed[np.asarray(indices, dtype=np.int64)] = True
    return fixed


def from_bag(found: Any, where: str, task: Task) -> Iterator[Frame]:
    """The structures of PyG's Data or Batch, or of a list of them.

    Args:
        found: what was in a pickle.
        where: the file and the place in it, for messages.
        task: what is taken of them.

    Raises:
        DataError: it is something else, or an attribute is missing or of another shape.
    """
    if isinstance(found, (list, tuple)):
        for place, item in enumerate(found):
            yield from _structures(item, f"{where}: structure {place}", task)
    else:
        yield from _structures(found, where, task)


def _structures(bag: Any, where: str, task: Task) -> Iterator[Frame]:
    if not isinstance(bag, Bag):
        raise DataError(f"{where}: it holds a {type(bag).__name__}; Data of PyG would be right.")
    values = {_OLD_NAMES.get(name, name): value for name, value in bag.attributes().items()}
    try:
        counts = np.reshape(_numbers(values["natoms"] if "natoms" in values else len(values["pos"])), -1)
        ends = np.cumsum(counts, dtype=np.int64)
        if np.any(counts < 1) or ends[-1] != len(values["pos"]):
            raise ValueError("the numbers of atoms do not add up")
    except KeyError as error:
        raise DataError(f"{where}: it has no {error}.") from error
    except (TypeError, ValueError, IndexError) as error:
        raise DataError(f"{where}: it is no structure of this data set: {error}.") from error
    for graph, (count, end) in enumerate(zip(counts.tolist(), ends.tolist())):
        yield _structure(values, where, task, graph, len(counts), slice(end - count, end))


def _structure(values: Mapping[str, Any], where: str, task: Task, graph: int, graphs: int, rows: slice) -> Frame:
    def of_graph(name: str) -> Any:
        value = values[name]
        if np.ndim(value) == 0 and not isinstance(value, str):
            return value
        if len(value) != graphs:
            raise ValueError(f"'{name}' is of {len(value)} structures, not of {graphs}")
        return value[graph]

    try:
        atoms = {name: values[name][rows] for name in ("pos", "atomic_numbers", "tags", "fixed")}
        atoms["cell"] = np.reshape(_numbers(values["cell"]), (graphs, 3, 3))[graph]
        system = of_graph("sid") if "sid" in values else None
        names = {"y_init": "initial_energy", "y_relaxed": "relaxed_energy"} if task.relaxed else {"energy": "energy"}
        # OC22 does not give the energy before the relaxation.
        found = {new: of_graph(old) for old, new in names.items() if old != "y_init" or old in values}
        energies = task.energies(found, None if system is None else int(_single(system)))
        vectors = {"relaxed_positions": "pos_relaxed"} if task.relaxed else {"forces": "forces"}
        columns = {name: values[attribute][rows] for name, attribute in vectors.items()}
        frame = of_graph("fid") if "fid" in values else None
    except KeyError as error:
        raise DataError(f"{where}: it has no {error}.") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{where}: it is no structure of this data set: {error}.") from error
    return make_frame(where, atoms, energies, columns, system, frame)


def _numbers(values: Any) -> Array:
    found = np.asarray(values)
    if found.dtype.kind not in "fiub":
        raise TypeError("there is text where numbers should be")
    return found


def _array(values: Any, dtype: type[np.generic], *shape: int) -> Array:
    found = _numbers(values)
    if found.shape != shape:
        raise ValueError(f"an array is {list(found.shape)}; {list(shape)} would be right")
    with np.errstate(over="ignore", invalid="ignore"):
        made = found.astype(dtype)
    if found.dtype.kind == "f" and not (np.isfinite(found).all() and np.isfinite(made).all()):
        raise ValueError("a number is not finite")
    return made


def _single(value: Any) -> Any:
    """The number in an array of one, or the number."""
    found = np.reshape(_numbers(value), -1)
    if len(found) != 1 or not np.isfinite(found[0]):
        raise ValueError("what should be one number is none")
    return found[0]


def _named(number: Any) -> Array:
    return np.asarray(-1 if number is None else _single(number)).astype(np.int64)
