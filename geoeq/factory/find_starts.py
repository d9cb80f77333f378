"""Find the starting structures of a data set: from SMILES, files of structures, or adsorbates on surfaces."""

from __future__ import annotations

from itertools import chain, product
from pathlib import Path
from typing import Any

from geoeq.factory.pool import run_items
from geoeq.factory.set_folder import Sources
from geoeq.factory.starts import Start, fewest_unpaired, spin_fault
from geoeq.factory.surfaces import Surface, adsorbed, gas_start, slab_start
from geoeq.factory.task_results import Failure, Result
from geoeq.workers.processes import Pool

__all__ = ["MOLECULE", "find_starts"]

#: Prefix of the files of starts that come from SMILES.
MOLECULE = "molecule-"

#: Files of starts, and failures.
_Starts = tuple[list[Path], list[Failure]]


def find_starts(work: Path, sources: Sources, pool: Pool) -> _Starts:
    """Find all starts.

    Args:
        work: folder for the files of starts.
        sources: sources of the data set.
        pool: workers that compute.

    Returns:
        Files whose results contain the starts, and the failures.

    Raises:
        DataError: a file of structures cannot be read.
        InputError: a surface or adsorbate does not exist.
    """
    if sources.surfaces:
        return _from_surfaces(work, sources, pool)
    files, failures = _from_smiles(work, sources.smiles, pool)
    for index, path in enumerate(map(Path, sources.structures)):
        target = work / f"file-{index}.npz"
        result = _from_file(path)
        result.write(target)
        failures += result.failures
        files.append(target)
    return files, failures


def _from_smiles(work: Path, smiles: tuple[str, ...], pool: Pool) -> _Starts:
    items = [
        {"smiles": text, "name": text, "number": -1, "output": str(work / f"{MOLECULE}{index}.npz")}
        for index, text in enumerate(smiles)
    ]
    run_items(items, pool, "molecules")
    files: list[Path] = []
    failures: list[Failure] = []
    seen: dict[str, str] = {}
    for text, item in zip(smiles, items):
        path = Path(str(item["output"]))
        result = Result.read(path)
        failures += result.failures
        if not result.starts:
            continue
        name = str(result.starts[0]["name"])
        if name in seen:
            failures.append(Failure(text, -1, "reading", f"it is the same molecule as {seen[name]}"))
            continue
        seen[name] = text
        files.append(path)
    return files, failures


def _from_file(path: Path) -> Result:
    from geoeq.data.structures import read_structures  # imports PyTorch, which the workers do not need

    starts, failures = [], []
    for index, structure in enumerate(read_structures(path)):
        info = structure.atoms.info
        stated = float(next((info[key] for key in ("charge", "total_charge") if key in info), 0))
        charge = round(stated)
        multiplicity = round(float(info.get("multiplicity", fewest_unpaired(structure.atoms, charge))))
        fault = spin_fault(structure.atoms, charge, multiplicity)
        if charge != stated:
            fault = f"its charge {stated:g} is not a whole number"
        if fault is not None:
            failures.append(Failure(path.name, index, "spin", fault))
            continue
        atoms = structure.atoms.copy()
        atoms.info = {}
        start = Start(atoms.get_chemical_formula("hill"), path.name, index, atoms, charge, multiplicity)
        starts.append(start.to_dict())
    return Result(starts=starts, failures=failures)


def _from_surfaces(work: Path, sources: Sources, pool: Pool) -> _Starts:
    slabs = [slab_start(Surface.parse(text)) for text in sources.surfaces]
    clean = [*slabs, *map(gas_start, sources.adsorbates)]
    items: list[dict[str, Any]] = []
    for index, start in enumerate(clean):
        path = work / f"clean-{index}.npz"
        Result(starts=[start.to_dict()]).write(path)
        output = str(work / f"reference-{index}.npz")
        item = {"start": str(path), "index": 0, "reference": True, "name": start.name, "number": start.number}
        items.append(item | {"output": output})
    run_items(items, pool, "references")
    results = [Result.read(Path(item["output"])) for item in items]
    relaxed = [[Start.from_dict(start) for start in result.starts] for result in results]
    surfaces, gases = relaxed[: len(slabs)], relaxed[len(slabs) :]  # one start each, none where the relaxation failed
    files = []
    pairs = product(chain.from_iterable(surfaces), chain.from_iterable(gases))
    for number, (slab, gas) in enumerate(pairs):
        files.append(work / f"adsorbed-{number}.npz")
        Result(starts=[start.to_dict() for start in adsorbed(slab, gas)]).write(files[-1])
    return files, [failure for result in results for failure in result.failures]
