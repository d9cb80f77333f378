"""The starts of a set, in files of work: of SMILES, of files of structures, and of adsorbates on surfaces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from geoeq.factory.make_plan import Sources
from geoeq.factory.pool import Crew, run_items
from geoeq.factory.starts import Start, fewest_unpaired, spin_fault
from geoeq.factory.surfaces import Surface, adsorbed, gas_start, slab_start
from geoeq.factory.task_results import Failure, Result

__all__ = ["MOLECULE", "begin"]

#: How the names of the files of starts begin that come from SMILES.
MOLECULE = "molecule-"

#: Files of starts, and what failed.
_Begun = tuple[list[Path], list[Failure]]


def begin(work: Path, sources: Sources, crew: Crew) -> _Begun:
    """Find all starts.

    Args:
        work: the folder for them.
        sources: of the set.
        crew: who works.

    Returns:
        Files whose results have starts, and what failed.

    Raises:
        DataError: a file of structures cannot be read.
        InputError: there is no such surface or adsorbate.
    """
    if sources.surfaces:
        return _of_surfaces(work, sources, crew)
    files, failures = _of_smiles(work, sources.smiles, crew)
    for place, path in enumerate(sources.structures):
        target = work / f"file-{place}.npz"
        found = _of_file(path)
        found.write(target)
        failures += found.failures
        files.append(target)
    return files, failures


def _of_smiles(work: Path, smiles: tuple[str, ...], crew: Crew) -> _Begun:
    items = [
        {"smiles": text, "name": text, "number": -1, "output": str(work / f"{MOLECULE}{place}.npz")}
        for place, text in enumerate(smiles)
    ]
    run_items(items, crew, "molecules")
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


def _of_file(path: Path) -> Result:
    from geoeq.data.structures import read_structures  # with PyTorch, which the processes do without

    starts, failures = [], []
    for place, structure in enumerate(read_structures(path)):
        info = structure.atoms.info
        charge = round(float(info.get("charge", 0)))
        multiplicity = round(float(info.get("multiplicity", fewest_unpaired(structure.atoms, charge))))
        fault = spin_fault(structure.atoms, charge, multiplicity)
        if charge != float(info.get("charge", 0)):
            fault = f"its charge {info['charge']} is no whole number"
        if fault is not None:
            failures.append(Failure(path.name, place, "spin", fault))
            continue
        atoms = structure.atoms.copy()
        atoms.info = {}
        start = Start(atoms.get_chemical_formula("hill"), path.name, place, atoms, charge, multiplicity)
        starts.append(start.to_dict())
    return Result(starts=starts, failures=failures)


def _of_surfaces(work: Path, sources: Sources, crew: Crew) -> _Begun:
    slabs = [slab_start(Surface.parse(text)) for text in sources.surfaces]
    clean = [*slabs, *map(gas_start, sources.adsorbates)]
    items: list[dict[str, Any]] = []
    for place, start in enumerate(clean):
        path = work / f"clean-{place}.npz"
        Result(starts=[start.to_dict()]).write(path)
        output = str(work / f"reference-{place}.npz")
        named = {"name": start.name, "number": start.number, "output": output}
        items.append({"start": str(path), "place": 0, "reference": True, **named})
    run_items(items, crew, "references")
    results = [Result.read(Path(item["output"])) for item in items]
    relaxed = [[Start.from_dict(start) for start in result.starts] for result in results]
    pairs = [
        (slab, gas) for of in relaxed[: len(slabs)] for slab in of for others in relaxed[len(slabs) :] for gas in others
    ]
    files = []
    for number, (slab, gas) in enumerate(pairs):
        files.append(work / f"adsorbed-{number}.npz")
        Result(starts=[start.to_dict() for start in adsorbed(slab, gas)]).write(files[-1])
    return files, [failure for result in results for failure in result.failures]
