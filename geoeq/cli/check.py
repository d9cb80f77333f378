"""The body of ``geoeq check``: finds what is to be checked, and writes a table, a JSON file and a picture."""

from __future__ import annotations

import importlib
import inspect
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ase.data import atomic_numbers
from torch import nn
from torch_geometric.data import Data

from geoeq.data.structures import read_structures, to_data
from geoeq.errors import InputError, unknown_name
from geoeq.files import write_text
from geoeq.geometry.groups import symmetries_of
from geoeq.layers.layer import Group
from geoeq.models.checkpoint import load_checkpoint
from geoeq.symmetry import CHECKS, LayerReport, layer_report
from geoeq.symmetry.calculators import is_calculator
from geoeq.symmetry.prepare import prepare
from geoeq.symmetry.symmetry_report import report_of

__all__ = ["check", "find_candidate"]

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+(:[A-Za-z_]\w*)?|[A-Za-z_]\w*:[A-Za-z_]\w*")


def find_candidate(text: str) -> tuple[object, Path | None]:
    """What a word of the command line names, and the folder of a run where it is one.

    Args:
        text: the folder of a run or checkpoint, a file in it, or the path of a class or function:
            ``geoeq.models.EGNN`` (its ``example()``), ``ase.calculators.emt:EMT``, ``my_module:my_function``.

    Raises:
        CheckpointError: the folder has no model, or it cannot be read.
        InputError: the path leads nowhere, or the class cannot be made without arguments.
    """
    path = Path(text)
    if path.exists() or not _DOTTED.fullmatch(text):
        folder = path.parent if path.is_file() else path
        return load_checkpoint(folder)[0], folder
    found = _imported(text)
    if not inspect.isclass(found):
        return found, None
    make = getattr(found, "example", found)
    try:
        torch.manual_seed(0)
        return make(), None
    except TypeError as error:
        raise InputError(
            f"'{text}' is a class that cannot be made without arguments ({error}). Give it an example(), or name a "
            "function of yours that is called on Data, as in my_module:my_model."
        ) from error


def _imported(text: str) -> Any:
    module_name, _, name = text.rpartition(":" if ":" in text else ".")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise InputError(f"'{text}': cannot import '{module_name}' ({error}).") from error
    if not hasattr(module, name):
        public = [entry for entry in dir(module) if callable(getattr(module, entry)) and entry[0] != "_"]
        raise InputError(f"'{text}': {unknown_name(f'object of {module_name}', name, public)}")
    return getattr(module, name)


def check(
    text: str,
    *,
    file: Path | None = None,
    elements: str | None = None,
    cutoff: float | None = None,
    group: Group | None = None,
    conservative: bool | None = None,
    layers: bool = False,
    output: Path | None = None,
    seed: int = 0,
) -> tuple[list[str], bool]:
    """Check a model, and write check.json and check.png.

    Args:
        text: what is checked, as for ``find_candidate``.
        file: structures to try, in a format that ASE reads, or sdf; by default random ones.
        elements: symbols of the elements of random structures, as in "H,C,O".
        cutoff, group, conservative: as for ``geoeq.symmetry.report``.
        layers: watch every layer, too.
        output: the folder to write into; by default ``check`` in the folder of a run, or ``runs/check-NAME``.
        seed: of structures and group elements.

    Returns:
        The lines of the table, and whether all passed.

    Raises:
        GeoeqError: what is to be checked is not found or cannot be tried.
    """
    from geoeq.symmetry.symmetry_plot import draw_check

    found, run = find_candidate(text)
    candidate = prepare(
        found,
        None if file is None else _structures(file),
        name=text,
        elements=None if elements is None else _numbers(elements),
        cutoff=cutoff,
        group=group,
        conservative=conservative,
        seed=seed,
    )
    if layers and candidate.module is None:
        kind = "a calculator of ASE" if is_calculator(found) else f"a {type(found).__name__}"
        raise InputError(f"--layers watches the layers of a network, and '{text}' is {kind}.")
    result = report_of(candidate, tuple(CHECKS), seed)
    lines, written, watched = str(result).split("\n"), result.to_dict(), None
    if isinstance(candidate.module, nn.Module) and layers:
        watched = _layers(candidate.module, candidate.batches[0], candidate.group, seed)
        written["layers"] = watched.to_dict()
        lines += ["", *str(watched).split("\n")]
    folder = output or (run / "check" if run else Path("runs") / f"check-{re.split('[.:]', text)[-1]}")
    write_text(folder / "check.json", json.dumps(written, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    draw_check(folder / "check.png", result, watched)
    passed = result.passed and (watched is None or watched.passed)
    count = len(result.failed)
    verdict = "All that applies has passed." if passed else f"{count} check{'' if count == 1 else 's'} failed."
    lines += ["", f"{verdict} The numbers are in '{folder / 'check.json'}', a picture in '{folder / 'check.png'}'."]
    return lines, passed


def _layers(network: nn.Module, batch: Any, group: str, seed: int) -> LayerReport:
    symmetries = [name for name in symmetries_of(group) if name != "batch"]
    return layer_report(network, batch, symmetries=symmetries, seed=seed)


def _structures(file: Path) -> list[Data]:
    return [to_data(structure.atoms, torch.float64) for structure in read_structures(file)]


def _numbers(elements: str) -> Sequence[int]:
    names = [name.strip() for name in elements.split(",")]
    for name in names:
        if atomic_numbers.get(name, 0) < 1:
            raise InputError(f"--elements {elements}: '{name}' is no element; write symbols, as in H,C,O.")
    return [atomic_numbers[name] for name in names]
