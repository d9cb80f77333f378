"""From SMILES, files or surfaces to a labelled data set, by several processes, going on where it was killed."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoeq.errors import InputError
from geoeq.factory.dask_pool import DaskCrew
from geoeq.factory.initial import MOLECULE, begin
from geoeq.factory.make_plan import Sources, locked, make_plan, prepare_folder
from geoeq.factory.methods import Method, find_method
from geoeq.factory.pool import Crew, Processes, cores, run_items
from geoeq.factory.settings import Settings
from geoeq.factory.task_results import Result
from geoeq.resources import import_extra

if TYPE_CHECKING:
    from geoeq.factory.made_dataset import Summary

__all__ = ["make_set"]

_CONFORMERS = "conformers: S. Riniker, G. A. Landrum, J. Chem. Inf. Model. 55, 2562 (2015), and MMFF94"


def make_set(
    folder: Path,
    sources: Sources,
    settings: Settings,
    *,
    processes: int | None = None,
    dask: str | None = None,
    again: bool = False,
) -> Summary:
    """Make the data set ``folder``, which ``geoeq train`` takes by that name.

    Each start is labelled by one thread and has a seed of its own, so that the numbers do not depend on how many
    processes there are. What is done is kept when this is killed; what fails is left out, and ``failures.csv`` says
    why.

    Args:
        folder: made if it is not there.
        sources: what is sampled.
        settings: how it is sampled and labelled.
        processes: as many as there are cores if None.
        dask: the address of a scheduler of Dask, on whose workers the processes run in place of this machine.
        again: throw away what was made before.

    Raises:
        InputError: a setting is wrong, or the folder holds a set of other settings, or something else; or Dask does
            not answer, or has other programs.
        DataError: a file cannot be read, or not one structure could be labelled.
        MissingExtraError: a package is not installed.
    """
    if dask is not None and processes is not None:
        raise InputError("The workers of Dask are as many as there are: leave out --processes, or --dask.")
    method = find_method(settings.method, settings.arguments)
    if sources.smiles:
        import_extra("rdkit", "chem")
    from geoeq.factory.made_dataset import Summary, write_set  # with PyTorch, which the processes do without

    plan = make_plan(sources, settings, method)
    work = folder / ".work"
    with locked(folder), contextlib.ExitStack() as stack:
        prepare_folder(folder, plan, again)
        if (folder / "card.yaml").exists():
            return Summary.read(folder)
        work.mkdir(exist_ok=True)
        crew: Crew = (
            Processes(settings, work, processes or cores())
            if dask is None
            else stack.enter_context(DaskCrew(settings, work, dask, smiles=bool(sources.smiles)))
        )
        files, failures = begin(work, sources, crew)
        items = [
            {
                "start": str(file),
                "place": place,
                "name": start["name"],
                "number": start["number"],
                "output": str(work / f"frames-{file.stem}-{place}.npz"),
            }
            for file in files
            for place, start in enumerate(Result.read(file).starts)
        ]
        run_items(items, crew, "structures")
        counts = {name: len(given) for name, given in plan["sources"].items()}  # plan.json has them all
        said = {
            "sources": counts,
            "title": _title(sources, items, method),
            "citation": _citation(sources, method),
            "seed": settings.seed,
        }
        summary = write_set(folder, [Path(str(item["output"])) for item in items], failures, {**plan, **said})
        shutil.rmtree(work, ignore_errors=True)  # a process of a killed run may still write there
    return summary


def _title(sources: Sources, items: Sequence[Mapping[str, Any]], method: Method) -> str:
    """What the set was made of: only what came to a label."""
    labelled = [item for item in items if Result.read(Path(item["output"])).start is not None]
    if sources.surfaces:
        pairs = [str(item["name"]).split(" on ") for item in labelled]
        what = {"surfaces": {surface for _, surface in pairs}, "adsorbates": {adsorbate for adsorbate, _ in pairs}}
    else:
        files = {Path(item["start"]).stem for item in labelled}
        what = {"SMILES": {name for name in files if name.startswith(MOLECULE)}}
        what["files of structures"] = files - what["SMILES"]
    return f"{', '.join(f'{len(of)} {name}' for name, of in what.items() if of)}; {method.title}"


def _citation(sources: Sources, method: Method) -> str:
    return "; ".join(filter(None, [method.citation, _CONFORMERS if sources.smiles else ""]))
