"""HDF5 files with one group per molecule, such as those of SPICE, ANI and QM7-X."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from geoeq.data.formats.hdf5_groups import Molecule, molecules, opened
from geoeq.data.formats.keyed import KeyedReader, units_of
from geoeq.data.formats.quantities import DETECTED, Key, Survey, choose_keys, columns, is_of_nodes
from geoeq.data.formats.uniform import atomic_numbers, merged, slices, uniform
from geoeq.data.ragged import Array
from geoeq.data.records import Records
from geoeq.errors import DataError
from geoeq.units import conversion

__all__ = ["LAYOUTS", "HDF5Reader", "Layout"]


@dataclass(frozen=True)
class Layout:
    """Names of the arrays of a molecule.

    Attributes:
        numbers: array of atomic numbers or symbols, [n] or [G, n].
        positions: array of positions [G, n, 3], or [n, 3] if each structure has its own group.
        keys: field -> array, used if no key is specified and all molecules have the array.
        length: unit of the positions; None if the card must specify it.
        energy: unit of the energies; None if the card must specify it.
        gaps: whether NaN marks values that were not computed; structures with such values are left out.
    """

    numbers: str
    positions: str
    keys: Mapping[str, str] = field(default_factory=dict)
    length: str | None = "Å"
    energy: str | None = "Ha"
    gaps: bool = False


#: Published layouts, and one that files of several origins and units have. Forces of SPICE are per Bohr, those of ANI
#: per Å.
LAYOUTS = {
    "spice": Layout(
        "atomic_numbers",
        "conformations",
        {
            "energy": "dft_total_energy",
            "forces": "-dft_total_gradient",
            "dipole": "scf_dipole",
            "charges": "mbis_charges",
        },
        length="Bohr",
    ),
    "ani-1x": Layout(
        "atomic_numbers",
        "coordinates",
        {"energy": "wb97x_dz.energy", "forces": "wb97x_dz.forces"},
        gaps=True,
    ),
    "ani": Layout("species", "coordinates", {"energy": "energies", "forces": "forces"}),
    "ani-like": Layout("atomic_numbers", "coordinates", {"energy": "energies", "forces": "forces"}, energy=None),
    "qm7-x": Layout(
        "atNUM", "atXYZ", {"energy": "ePBE0+MBD", "forces": "totFOR", "dipole": "vDIP", "charges": "hCHG"}, energy="eV"
    ),
}


class HDF5Reader(KeyedReader):
    """Reader of HDF5 files in which each molecule is a group, at any depth, of atomic numbers, positions and labels.

    Groups are read in the order of their names. The names of the arrays tell which of ``LAYOUTS`` the file has.

    Args:
        keys: field -> array in the group, or null to skip the quantity; ``-name`` is the negative of ``name``. All
            molecules must have the specified arrays.
        length: unit of the positions, if it is not that of the layout.
        order: order of the six components of a stress or virial.
        structure: names of the arrays of ``positions`` and ``numbers``, for other layouts.
    """

    version: ClassVar[int] = 1

    def __init__(
        self,
        keys: Mapping[str, str | None] | None = None,
        length: str | None = None,
        order: str = "ase",
        structure: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(keys, length, order)
        self.specified_length = length
        self.layouts: Mapping[str, Layout] = LAYOUTS
        if structure is not None:
            if {*structure} != {"positions", "numbers"}:
                raise ValueError("structure: it must have exactly the keys 'positions' and 'numbers'.")
            self.layouts = {"specified": Layout(structure["numbers"], structure["positions"], length=None, energy=None)}

    def look(self, files: Mapping[str, Path]) -> Survey:
        """Collect names and shapes of the arrays of all molecules, without reading the numbers."""
        graphs, nodes, counts = Counter[str](), Counter[str](), dict.fromkeys(files, 0)
        name = ""
        for file, path in files.items():
            with opened(path) as root:
                for molecule in molecules(root, self.layouts, str(path)):
                    name = name or molecule.layout
                    if molecule.layout != name:
                        raise DataError(
                            f"{molecule.where}: it has the layout '{molecule.layout}', but others have '{name}'."
                        )
                    counts[file] += molecule.count
                    for array, shape in molecule.shapes.items():
                        if shape[:1] == (molecule.count,):
                            graphs[array] += molecule.count
                        if shape[:2] == (molecule.count, molecule.atoms):
                            nodes[array] += molecule.count
        where, total = ", ".join(map(str, files.values())), sum(counts.values())
        if not total:
            expected = "; ".join(f"{layout.numbers} and {layout.positions}" for layout in self.layouts.values())
            raise DataError(f"{where}: no group has the arrays of a molecule ({expected}).")
        layout = self.layouts[name]
        keys, notes = choose_keys(
            {**self._usual(layout, graphs, nodes, total), **self.keys}, graphs, nodes, total, where
        )
        if layout.keys:
            used = ", ".join(f"{field} is '{key}'" for field, key in keys.items())
            notes = [f"The file has the layout of {name}: {used or 'no quantities'}.", *notes]
        if layout.gaps:
            notes.append("Structures for which one of these is NaN, that is, was not computed, are left out.")
        units = {} if layout.energy is None else units_of(keys, layout.energy, layout.length or "Å", where)
        return Survey(keys, units, {} if layout.gaps else counts, notes)

    @staticmethod
    def _usual(
        layout: Layout, graphs: Mapping[str, int], nodes: Mapping[str, int], total: int
    ) -> dict[str, Key | None]:
        """Return the keys of a layout that all structures have; in a known layout nothing else is detected."""
        if not layout.keys:
            return {}
        usual = {field: Key.of(key) for field, key in layout.keys.items()}
        counts = {field: nodes if is_of_nodes(field) else graphs for field in usual}
        return {**dict.fromkeys(DETECTED), **{f: key for f, key in usual.items() if counts[f].get(key.name) == total}}

    def read(self, files: Mapping[str, Path]) -> Iterator[Records]:
        """Read the structures of all files, in order.

        Raises:
            DataError: a file is truncated or altered, links to another file, or lacks arrays.
            MissingExtraError: h5py is not installed.
        """
        survey = self.survey(files)
        for path in files.values():
            with opened(path) as root:
                yield from merged(self._pieces(root, survey, str(path)))

    def _pieces(self, root: Any, survey: Survey, where: str) -> Iterator[Records]:
        for molecule in molecules(root, self.layouts, where):
            layout = self.layouts[molecule.layout]
            unit = self.specified_length or layout.length
            if unit is None:
                raise DataError(f"{where}: the unit of the positions is unknown; specify it by the option 'length'.")
            numbers = atomic_numbers(molecule.whole(layout.numbers), molecule.where)
            for part in slices(molecule.count, molecule.atoms):
                records = self._records(molecule, layout, numbers, part, survey, conversion(unit, "Å"))
                if records is not None:
                    yield records

    def _records(
        self, molecule: Molecule, layout: Layout, numbers: Array, part: slice, survey: Survey, scale: float
    ) -> Records | None:
        values = {key.name: molecule.rows(key.name, part) for key in survey.keys.values()}
        positions = molecule.rows(layout.positions, part).astype(np.float64) * scale
        numbers = numbers[part] if numbers.ndim == 2 else numbers
        if layout.gaps:
            complete = np.ones(len(positions), dtype=np.bool_)
            for array in values.values():
                complete &= np.isfinite(array.reshape(len(array), -1)).all(1)
            values = {name: array[complete] for name, array in values.items()}
            positions, numbers = positions[complete], numbers[complete] if numbers.ndim == 2 else numbers
        count = len(positions)
        if not count:
            return None
        quantities = columns(survey.keys, values, (count,), (count, molecule.atoms), None, molecule.where, self.order)
        return uniform(numbers, positions, *quantities)
