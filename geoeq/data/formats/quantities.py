"""Quantities such as energies and forces in files: their keys, shapes and signs.

A key is specified by the user, or detected and reported; geoeq never guesses among several.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from geoeq.data.molecules.net_charge import NET_CHARGE_KEYS
from geoeq.data.ragged import Array
from geoeq.errors import DataError, unknown_name
from geoeq.fields import FIELDS

__all__ = [
    "DETECTED",
    "ORDERS",
    "VIRIAL",
    "Key",
    "Survey",
    "check_keys",
    "choose_keys",
    "column_of",
    "columns",
    "is_of_nodes",
    "shaped",
]

#: Not a field: a virial is converted to the stress, -virial / volume.
VIRIAL = "virial"

_PREFIXES = ("", "ref_", "reference_", "dft_", "qm_", "true_")
_NAMES = {
    "energy": ("energy", "energies", "e", "total_energy", "totenergy", "potential_energy"),
    "forces": ("forces", "force", "f"),
    "stress": ("stress",),
    VIRIAL: ("virial", "virials"),
    "dipole": ("dipole", "dipoles", "dipole_moment"),
    "charges": ("charges", "atomic_charges", "partial_charges"),
}

#: Quantities that are detected if no key is specified -> their common names, in small letters.
DETECTED = {name: {prefix + word for prefix in _PREFIXES for word in words} for name, words in _NAMES.items()}
DETECTED["total_charge"] = set(NET_CHARGE_KEYS)

#: Shapes of scalars and vectors; other fields keep the shape of the file.
_SHAPES = {"0e": (), "1o": (3,)}

#: Name of an order -> the components of a symmetric matrix in that order.
ORDERS = {
    "ase": ("xx", "yy", "zz", "yz", "xz", "xy"),
    "vasp": ("xx", "yy", "zz", "xy", "yz", "xz"),
}

#: Largest relative asymmetry of a matrix that is attributed to round-off.
_ASYMMETRY = 1e-3


class Key(NamedTuple):
    """The name of a quantity in a file; ``sign`` is -1 if the file contains its negative, such as a gradient."""

    name: str
    sign: float = 1.0

    @classmethod
    def of(cls, text: str) -> Key:
        """Parse a key of a card: ``-gradient`` is the negative of ``gradient``."""
        return cls(text[1:], -1.0) if text.startswith("-") else cls(text)

    def __str__(self) -> str:
        return f"-{self.name}" if self.sign < 0 else self.name


@dataclass(frozen=True)
class Survey:
    """What a reader will take from files, known before it reads them.

    Attributes:
        keys: quantity -> key in the file.
        units: column -> unit of the file.
        counts: file -> number of structures that are read from it.
        notes: remarks for the user, as sentences: what was detected, chosen and left out.
        lists: name of a published list -> indices of its structures, for splits.
        stated: column -> unit that the file itself states, which a card must not contradict.
    """

    keys: Mapping[str, Key]
    units: Mapping[str, str]
    counts: Mapping[str, int]
    notes: Sequence[str] = ()
    lists: Mapping[str, Sequence[int]] = field(default_factory=dict)
    stated: Mapping[str, str] = field(default_factory=dict)


def check_keys(keys: Mapping[str, str | None] | None) -> dict[str, Key | None]:
    """Parse the keys of a card: quantity -> key, or None to skip the quantity.

    Raises:
        ValueError: a quantity is unknown, a key is not text, or both stress and virial are specified.
    """
    known = {*FIELDS, VIRIAL}
    checked: dict[str, Key | None] = {}
    for name, key in (keys or {}).items():
        if name not in known:
            raise ValueError(f"keys: {unknown_name('quantity', name, known)}")
        if key is not None and (not isinstance(key, str) or not key.lstrip("-")):
            raise ValueError(f"keys: the key of '{name}' must be a name in the file or null, not {key!r}.")
        checked[name] = None if key is None else Key.of(key)
    if checked.get("stress") and checked.get(VIRIAL):
        raise ValueError("keys: specify stress or virial, not both, as a virial is converted to the stress.")
    return checked


def choose_keys(
    specified: Mapping[str, Key | None], graphs: Mapping[str, int], nodes: Mapping[str, int], total: int, where: str
) -> tuple[dict[str, Key], list[str]]:
    """Choose the key of each quantity.

    Specified keys are used. Another quantity is read if exactly one of its common names occurs, in all structures; a
    net charge may be missing in neutral ones.

    Args:
        specified: quantity -> key, or None to skip the quantity.
        graphs: key -> number of structures in which it is a property of the structure.
        nodes: key -> number of structures in which it is a property of each atom.
        total: number of structures.
        where: the file, for messages.

    Returns:
        Quantity -> key, and remarks for the user.

    Raises:
        DataError: a specified key is missing in some structures, or several names are possible.
    """
    keys: dict[str, Key] = {}
    notes: list[str] = []
    for name, key in specified.items():
        if key is None:
            continue
        counts = nodes if is_of_nodes(name) else graphs
        if key.name not in counts:
            raise DataError(
                f"{where}: {name}: {unknown_name('key', key.name, counts)} A specified key is never replaced."
            )
        if counts[key.name] < total:
            missing = total - counts[key.name]
            raise DataError(
                f"{where}: '{key.name}' was specified for {name}, but {missing} of {total} structures lack it."
            )
        keys[name] = key
    for name in DETECTED:
        rival = {"stress": VIRIAL, VIRIAL: "stress"}.get(name)
        if name in specified or (rival is not None and specified.get(rival) is not None):
            continue
        counts = nodes if is_of_nodes(name) else graphs
        matches = [key for key in counts if key.rpartition(".")[2].casefold() in DETECTED[name]]
        if name == "energy":  # in trajectories of ASE there are often "energies", those of the atoms, beside "energy"
            matches = [key for key in matches if counts[key] > nodes.get(key, 0)] or matches
        if name == "total_charge":  # a charge of each atom is not a net charge
            matches = [key for key in matches if key not in nodes]
        matches.sort(key=str.casefold)
        if len(matches) > 1:
            raise _ambiguous(where, name, matches)
        if matches and counts[matches[0]] < total and name != "total_charge":
            notes.append(f"{name} is not read: only {counts[matches[0]]} of {total} structures have '{matches[0]}'.")
        elif matches:
            keys[name] = Key(matches[0])
            neutral = "; structures without it are neutral" if counts[matches[0]] < total else ""
            notes.append(f"{name} is read from the key '{matches[0]}' (detected){neutral}.")
    if "stress" in keys and VIRIAL in keys:
        raise _ambiguous(where, "stress", [str(keys["stress"]), f"{keys[VIRIAL]} (as virial)"])
    rest = sorted({*graphs, *nodes} - {key.name for key in keys.values()})
    if rest:
        notes.append(f"Not read: {', '.join(rest)}.")
    return keys, notes


def _ambiguous(where: str, name: str, matches: Sequence[str]) -> DataError:
    return DataError(
        f"{where}: {name} may be any of {', '.join(repr(key) for key in matches)}. Choose one in a card, as in "
        f"'options: {{keys: {{{name}: {matches[0].split(' ')[0]}}}}}', or null to skip it."
    )


def column_of(name: str) -> str:
    """Return the column of a quantity: a virial is stored as the stress."""
    return "stress" if name == VIRIAL else name


def is_of_nodes(name: str) -> bool:
    """Return whether the quantity is a property of each atom."""
    return name != VIRIAL and FIELDS[name].level == "node"


def shaped(name: str, values: object, counts: Iterable[int], where: str, order: str = "ase") -> Array:
    """Return the values of a quantity in the shape of its field, in float64; those of atoms in float32 if they are so.

    Args:
        name: the quantity.
        values: values in the file.
        counts: shape before the components: () for one structure, [n] for its atoms, [G] or [G, n] for many.
        where: file and index, for messages.
        order: order of the six components of a stress or virial, one of ``ORDERS``.

    Raises:
        DataError: the values are not finite numbers, or do not have the number of components of the field.
    """
    rows = tuple(counts)
    try:
        raw = np.asarray(values)
        array = raw.astype(np.float32 if is_of_nodes(name) and raw.dtype == np.float32 else np.float64)
        if not np.isfinite(array).all():
            raise ValueError("not all of them are finite")
        if column_of(name) == "stress":
            return _symmetric_matrices(array.reshape(*rows, -1), order)
        return array.reshape((*rows, *_SHAPES.get(FIELDS[name].irreps, array.shape[len(rows) :])))
    except (TypeError, ValueError) as error:
        width = "6 or 9" if column_of(name) == "stress" else {"0e": "1", "1o": "3"}.get(FIELDS[name].irreps, "some")
        each = f" for each of {' x '.join(map(str, rows))}" if rows else ""
        raise DataError(f"{where}: {name} must be {width} finite numbers{each}: {error}") from error


def columns(
    keys: Mapping[str, Key],
    values: Mapping[str, object],
    graphs: tuple[int, ...],
    nodes: tuple[int, ...],
    cell: Array | None,
    where: str,
    order: str = "ase",
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return the columns of structures and those of their atoms.

    Args:
        keys: quantity -> key.
        values: key -> values in the file.
        graphs: () for one structure, or (G,).
        nodes: (n,) for one structure, or (G, n).
        cell: [3, 3] or [G, 3, 3], needed for virials.
        where: file and index, for messages.
        order: order of the six components of a stress or virial.

    Raises:
        DataError: values have the wrong shape or are not finite, or the cell of a virial has no volume.
    """
    of_graphs: dict[str, Array] = {}
    of_nodes: dict[str, Array] = {}
    for name, key in keys.items():
        rows = nodes if is_of_nodes(name) else graphs
        raw = values.get(key.name, 0.0) if name == "total_charge" else values[key.name]
        value = key.sign * shaped(name, raw, rows, where, order)
        if name == VIRIAL:
            volume = np.abs(np.linalg.det(np.zeros((3, 3)) if cell is None else cell))
            if not np.all(volume > 0):
                raise DataError(f"{where}: a virial can be converted to a stress only if the cell has a volume.")
            value = -value / volume[..., None, None]  # the virial is -dE/d(strain); the stress has ASE's sign
        (of_nodes if is_of_nodes(name) else of_graphs)[column_of(name)] = value
    return of_graphs, of_nodes


def _symmetric_matrices(values: Array, order: str) -> Array:
    """Return the symmetric matrices [.., 3, 3] of six components [.., 6] or of nine [.., 9]."""
    if values.shape[-1] == 9:
        matrices = values.reshape(*values.shape[:-1], 3, 3)
        odd = matrices - matrices.swapaxes(-1, -2)
        if np.abs(odd).max(initial=0.0) > _ASYMMETRY * np.abs(matrices).max(initial=0.0):
            worst = np.abs(odd).reshape(-1, 9).max(1).argmax()
            raise ValueError(f"the matrix is not symmetric: {matrices.reshape(-1, 9)[worst]}")
        return matrices - odd / 2
    if values.shape[-1] != 6:
        raise ValueError(f"it has {values.shape[-1]} components")
    indices = [ORDERS[order].index("".join(sorted(a + b))) for a in "xyz" for b in "xyz"]
    return values[..., indices].reshape(*values.shape[:-1], 3, 3)
