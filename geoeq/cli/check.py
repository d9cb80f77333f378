"""``geoeq check``: test the symmetries and forces of a model; writes a table, a JSON file and a plot."""

from __future__ import annotations

import argparse
import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoeq.errors import InputError
from geoeq.trust import Trust, import_from_current_folder
from geoeq.typed import Origin, import_object

if TYPE_CHECKING:
    from geoeq.layers.layer import Group

from geoeq.cli.options import add_output, add_trust

__all__ = ["add_check", "check", "load_subject", "run_check"]

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+(:[A-Za-z_]\w*)?|[A-Za-z_]\w*:[A-Za-z_]\w*")


def add_check(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``geoeq check``."""
    parser.epilog = "Example: geoeq check my_module.MyModel --layers"
    add = parser.add_argument
    add(
        "model",
        help="model to test: folder of a training run or checkpoint, published potential (7net-0), or path of a class, "
        "function or ASE calculator, such as geoeq.models.EGNN, my_module:my_function or ase.calculators.emt:EMT",
    )
    add("--layers", action="store_true", help="also test every layer, and name the first one that breaks a symmetry")
    add("--data", type=Path, metavar="FILE", help="file with structures to test on (default: random structures)")
    add(
        "--elements",
        metavar="H,C,O",
        help="elements of the random structures (default: elements of the model, or H, C, N, O and S)",
    )
    add("--cutoff", type=float, metavar="Å", help="neighbour cutoff radius in Å (default: cutoff of the model)")
    add(
        "--group",
        choices=("E(3)", "SE(3)"),
        help="symmetry group to test; SE(3) excludes reflections (default: group of the model, else E(3))",
    )
    add(
        "--conservative",
        action=argparse.BooleanOptionalAction,
        help="whether the forces must be minus the gradient of the energy (default: as the model declares)",
    )
    add("--seed", type=int, default=0, help="random seed of the structures and the group elements (default 0)")
    add_output(
        parser, "folder for check.json and check.png (default RUN/check for a training run, else runs/check-NAME)"
    )
    add_trust(parser)


def run_check(arguments: argparse.Namespace) -> int:
    """Test a model and print the table; return 1 if a check failed."""
    from geoeq.resources import import_extra

    import_extra("matplotlib", "plots")
    lines, passed = check(
        arguments.model,
        file=arguments.data,
        elements=arguments.elements,
        cutoff=arguments.cutoff,
        group=arguments.group,
        conservative=arguments.conservative,
        layers=arguments.layers,
        output=arguments.output,
        seed=arguments.seed,
        trust=arguments.trust,
    )
    print("\n".join(lines))
    return 0 if passed else 1


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
    trust: Trust = False,
) -> tuple[list[str], bool]:
    """Check a model, and write check.json and check.png.

    Args:
        text: the model, as for ``load_subject``.
        file: structure file to test on, in a format that ASE reads, or sdf; by default random structures are used.
        elements: symbols of the elements of the random structures, such as "H,C,O".
        cutoff, group, conservative: as for ``geoeq.symmetry.symmetry_report``.
        layers: whether to test every layer, too.
        output: folder to write into; by default ``check`` in the folder of a run, or ``runs/check-NAME``.
        seed: random seed of the structures and the group elements.
        trust: as for ``load_subject``.

    Returns:
        The lines of the table, and whether all checks passed.

    Raises:
        GeoeqError: the model cannot be loaded or tested.
    """
    from torch import nn

    from geoeq.files import write_json
    from geoeq.symmetry import CHECKS
    from geoeq.symmetry.calculators import is_calculator
    from geoeq.symmetry.prepare import prepare
    from geoeq.symmetry.symmetry_plot import draw_check
    from geoeq.symmetry.symmetry_report import report_of

    model, run = load_subject(text, trust=trust)
    subject = prepare(
        model,
        None if file is None else _structures(file),
        name=text,
        elements=None if elements is None else _atomic_numbers(elements),
        cutoff=cutoff,
        group=group,
        conservative=conservative,
        seed=seed,
    )
    if layers and subject.module is None:
        kind = "an ASE calculator" if is_calculator(model) else f"a {type(model).__name__}"
        raise InputError(f"--layers tests the layers of a network, and '{text}' is {kind}.")
    report = report_of(subject, tuple(CHECKS), seed)
    lines, content, layer_report = str(report).split("\n"), report.to_dict(), None
    if isinstance(subject.module, nn.Module) and layers:
        layer_report = _test_layers(subject.module, subject.batches[0], subject.group, seed)
        content["layers"] = layer_report.to_dict()
        lines += ["", *str(layer_report).split("\n")]
    default = run / "check" if run else Path("runs") / f"check-{re.split('[.:]', text)[-1].replace('/', '-')}"
    folder = output or default
    write_json(folder / "check.json", content, allow_nan=False)
    draw_check(folder / "check.png", report, layer_report)
    passed = report.passed and (layer_report is None or layer_report.passed)
    count = len(report.failed)
    verdict = "All applicable checks passed." if passed else f"{count} check{'' if count == 1 else 's'} failed."
    lines += ["", f"{verdict} Numbers: '{folder / 'check.json'}'. Plot: '{folder / 'check.png'}'."]
    return lines, passed


def load_subject(text: str, *, trust: Trust = False) -> tuple[Any, Path | None]:
    """Load the model that an argument of the command line names; return it, and the folder of its run if it has one.

    Args:
        text: folder of a run or checkpoint, file in one, name of a published potential, or path of a class or function:
            ``geoeq.models.EGNN`` (its ``example()`` is used), ``ase.calculators.emt:EMT``, ``my_module:my_function``.
        trust: modules outside geoeq whose classes the checkpoint may name, as for ``load_checkpoint``.

    Raises:
        CheckpointError: the folder contains no model, or it cannot be read.
        InputError: the path does not exist, or the class cannot be instantiated without arguments.
    """
    import torch

    from geoeq.models.checkpoint import load_checkpoint
    from geoeq.models.potential_cards import is_potential

    path = Path(text)
    if path.exists() or not _DOTTED.fullmatch(text):
        folder = path.parent if path.is_file() else path
        return load_checkpoint(folder, trust=trust)[0], None if is_potential(text) else folder
    import_from_current_folder()
    subject = import_object(text, Origin(f"'{text}'", error=InputError))
    if not inspect.isclass(subject):
        return subject, None
    create = getattr(subject, "example", subject)
    try:
        torch.manual_seed(0)
        return create(), None
    except TypeError as error:
        raise InputError(
            f"'{text}' is a class that cannot be instantiated without arguments ({error}). Add a class method "
            "example() to it, or name a function that takes Data, such as my_module:my_model."
        ) from error


def _test_layers(network: Any, batch: Any, group: str, seed: int) -> Any:
    from geoeq.geometry.groups import symmetries_of
    from geoeq.symmetry import layer_report

    symmetries = [name for name in symmetries_of(group) if name != "batch"]
    return layer_report(network, batch, symmetries=symmetries, seed=seed)


def _structures(file: Path) -> list[Any]:
    import torch

    from geoeq.data.structures import read_structures, to_data

    return [to_data(structure.atoms, torch.float64) for structure in read_structures(file)]


def _atomic_numbers(elements: str) -> list[int]:
    from ase.data import atomic_numbers

    symbols = [symbol.strip() for symbol in elements.split(",")]
    for symbol in symbols:
        if atomic_numbers.get(symbol, 0) < 1:
            raise InputError(f"--elements {elements}: '{symbol}' is not an element; write symbols, as in H,C,O.")
    return [atomic_numbers[symbol] for symbol in symbols]
