"""Base class of the readers of energies and forces, and the units that files state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from geoeq.data.formats.quantities import ORDERS, VIRIAL, Survey, check_keys, column_of
from geoeq.data.formats.stated_units import normalize_unit
from geoeq.data.records import Records
from geoeq.errors import DataError, FieldError, check_name
from geoeq.fields import FIELDS
from geoeq.units import conversion

__all__ = ["KeyedReader", "units_of"]


class KeyedReader:
    """Base class of readers that find quantities by their keys, and survey the files before they read them.

    Args:
        keys: field (or virial) -> key in the file, or null to skip the quantity. ``-name`` is the negative of ``name``.
            Other quantities are detected by their common names, if exactly one of these names occurs.
        length: unit of positions and cells; that of the format if None.
        order: order of the six components of a stress or virial: "ase" (xx yy zz yz xz xy) or "vasp" (xx yy zz xy yz
            xz).
    """

    #: The default unit of positions and cells.
    length = "Å"

    def __init__(
        self, keys: Mapping[str, str | None] | None = None, length: str | None = None, order: str = "ase"
    ) -> None:
        self.keys = check_keys(keys)
        self.length = length or self.length
        check_name("order of components", order, ORDERS, ValueError)
        self.order = order
        try:
            self.scale = conversion(self.length, "Å")
        except FieldError as error:
            raise ValueError(f"length: {error}") from error
        self._surveyed: tuple[list[tuple[str, int, int]], Survey] | None = None

    def survey(self, files: Mapping[str, Path]) -> Survey:
        """Return what will be read from ``files``. They are inspected once, and again only if they change.

        Raises:
            DataError: a file is truncated, altered or of another format, or a key is missing or ambiguous.
        """
        state = [(f"{name} {path}", *_state(path)) for name, path in files.items()]
        if self._surveyed is None or self._surveyed[0] != state:
            self._surveyed = (state, self.look(files))
        return self._surveyed[1]

    def look(self, files: Mapping[str, Path]) -> Survey:
        """Inspect ``files``; each format implements this."""
        raise NotImplementedError

    def read(self, files: Mapping[str, Path]) -> Iterator[Records]:
        """Read the structures of all files, in order and in chunks; each format implements this.

        Raises:
            DataError: a file is truncated, altered or of another format; the message names it.
        """
        raise NotImplementedError


def _state(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"There is no file {path}: {error}.") from error
    return status.st_size, status.st_mtime_ns


def units_of(quantities: Iterable[str], energy: str, length: str, where: str) -> dict[str, str]:
    """Return the units of the columns of a file, given its units of energy and length.

    Raises:
        DataError: one of the two is not a unit of its kind.
    """
    energy, length = normalize_unit(energy), normalize_unit(length)
    for unit, internal in ((energy, "eV"), (length, "Å")):
        try:
            conversion(unit, internal)
        except FieldError as error:
            raise DataError(f"{where}: the unit in the file cannot be used: {error}") from error
    forms = {"eV": energy, "eV/Å": f"{energy}/{length}", "eV/Å^3": f"{energy}/{length}^3", "e·Å": f"e·{length}"}
    units = {}
    for name in quantities:
        column = column_of(name)
        units[column] = f"{energy}/Å^3" if name == VIRIAL else forms.get(FIELDS[column].unit, FIELDS[column].unit)
    return units
