"""Steps of electronic-structure outputs whose self-consistent field did not converge: they are no labels."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from geoeq.data.containers.unpack import unpacked
from geoeq.errors import DataError

__all__ = ["unconverged_steps"]

#: ASE's name of a format -> remark of the program about an SCF cycle that did not converge, in small letters.
_REMARKS = {
    "aims-output": "self-consistency cycle did not converge",
    "espresso-out": "convergence not achieved",
    "gaussian-out": "convergence failure",
    "gpaw-out": "did not converge!",
    "nwchem-text": "calculation failed to converge",
    "orca-output": "scf not converged",
}

#: Largest number of electronic steps in OUTCAR, the index of a step, and the end of an ionic step.
_NELM = re.compile(r"\s*NELM\s*=\s*(\d+)")
_ITERATION = re.compile(r".*Iteration\s+\d+\(\s*(\d+)\)")
_REACHED, _END = "EDIFF is reached", "FREE ENERGIE OF THE ION-ELECTRON SYSTEM"


def unconverged_steps(path: Path, kind: str, count: int) -> tuple[set[int], str]:
    """Return the indices of the steps of an output that did not converge, and a remark about them.

    Args:
        path: path of the file.
        kind: ASE's name of its format.
        count: number of structures that ASE finds.

    Raises:
        DataError: another program than VASP reports that a step did not converge, without saying which structure it is.
    """
    if kind in _REMARKS:
        with unpacked(path) as plain, plain.open(encoding="utf-8", errors="replace") as file:
            if any(_REMARKS[kind] in line.casefold() for line in file):
                raise DataError(f"{path}: the SCF of a step did not converge ('{_REMARKS[kind]}'). Remove this step.")
    read = {"vasp-out": _outcar, "vasp-xml": _vasprun}.get(kind)
    if read is None:
        return set(), ""
    with unpacked(path) as plain:
        steps = list(read(plain))
    failed = {index for index, converged in enumerate(steps[:count]) if not converged}
    if not failed:
        return failed, ""
    listed = ", ".join(map(str, sorted(failed)[:5])) + (", .." if len(failed) > 5 else "")
    return failed, (
        f"{len(failed)} of {count} steps of {path.name} are left out: their SCF stopped at NELM electronic steps "
        f"without convergence (steps {listed}, counted from 0)."
    )


def _outcar(path: Path) -> Iterator[bool]:
    """Yield whether each ionic step of an OUTCAR converged."""
    limit, last, reached = None, 0, False
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if limit is None and (match := _NELM.match(line)):
                limit = int(match[1])
            elif match := _ITERATION.match(line):
                last = int(match[1])
            elif _REACHED in line:
                reached = True
            elif _END in line:
                yield reached or limit is None or last < limit
                last, reached = 0, False


def _vasprun(path: Path) -> Iterator[bool]:
    """Yield whether each ionic step of a vasprun.xml converged: whether it has less than NELM electronic steps."""
    limit, steps = None, 0
    try:
        for _, element in ElementTree.iterparse(path):
            if element.tag == "i" and element.get("name") == "NELM":
                limit = int(element.text or 0)
            elif element.tag == "scstep":
                steps += 1
            elif element.tag == "calculation":
                yield limit is None or steps < limit
                steps = 0
                element.clear()
    except (ElementTree.ParseError, ValueError):
        return  # ASE reads the complete steps of a file that is truncated
