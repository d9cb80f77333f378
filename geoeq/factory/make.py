"""Make a labelled data set from SMILES, files or surfaces, in parallel and with resume."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoeq.errors import InputError
from geoeq.factory.find_starts import MOLECULE, find_starts
from geoeq.factory.methods import Method, find_method
from geoeq.factory.pool import dask_pool, process_pool, run_items
from geoeq.factory.set_folder import Sources, locked, make_plan, prepare_folder
from geoeq.factory.settings import Settings
from geoeq.factory.task_results import Result
from geoeq.resources import import_extra

if TYPE_CHECKING:
    from geoeq.factory.write_dataset import Summary

__all__ = ["make_set"]

_CONFORMERS = "conformers: S. Riniker, G. A. Landrum, J. Chem. Inf. Model. 55, 2562 (2015), and MMFF94"


def make_set(
    folder: str | Path,
    sources: Sources,
    settings: Settings,
    *,
    processes: int | None = None,
    dask: str | None = None,
    again: bool = False,
) -> Summary:
    """Make the data set ``folder``, which ``geoeq train`` accepts by this name.

    Each start is labelled by one thread and has its own seed, so that the numbers do not depend on the number of
    processes. If this process is killed, the same call resumes. Structures that fail are left out and listed in
    ``failures.csv`` with the reason.

    Args:
        folder: folder of the data set; it is created if it does not exist.
        sources: sources of the structures.
        settings: settings of sampling and labelling.
        processes: number of worker processes; None for the number of cores.
        dask: address of a Dask scheduler whose workers compute instead of this machine.
        again: delete the data set that is in the folder, and start again.

    Raises:
        InputError: a setting is wrong, the folder holds a data set of other settings or other files, Dask does not
            answer, or its workers have other programs.
        DataError: a file cannot be read, or no structure could be labelled.
        MissingExtraError: a package is not installed.
    """
    folder = Path(folder)
    if dask is not None and processes is not None:
        raise InputError("Dask determines the number of workers: leave out --processes, or --dask.")
    method = find_method(settings.method, settings.arguments)
    if sources.smiles:
        import_extra("rdkit", "chem")
    from geoeq.factory.write_dataset import Summary, write_set  # imports PyTorch, which the workers do not need

    plan = make_plan(sources, settings, method)
    work = folder / ".work"
    with locked(folder):
        prepare_folder(folder, plan, again)
        if (folder / "card.yaml").exists():
            return Summary.read(folder)
        work.mkdir(exist_ok=True)
        with (
            process_pool(settings, work, processes)
            if dask is None
            else dask_pool(settings, work, dask, smiles=bool(sources.smiles))
        ) as pool:
            files, failures = find_starts(work, sources, pool)
            items = [
                {
                    "start": str(file),
                    "index": index,
                    "name": start["name"],
                    "number": start["number"],
                    "output": str(work / f"frames-{file.stem}-{index}.npz"),
                }
                for file in files
                for index, start in enumerate(Result.read(file).starts)
            ]
            run_items(items, pool, "structures")
        counts = {name: len(values) for name, values in plan["sources"].items()}  # plan.json lists them
        made = {
            "sources": counts,
            "title": _title(sources, items, method),
            "citation": _citation(sources, method),
            "seed": settings.seed,
        }
        summary = write_set(folder, [Path(str(item["output"])) for item in items], failures, {**plan, **made})
        shutil.rmtree(work, ignore_errors=True)  # a worker of a killed run may still write there
    return summary


def _title(sources: Sources, items: Sequence[Mapping[str, Any]], method: Method) -> str:
    """Describe the sources that led to at least one label."""
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
