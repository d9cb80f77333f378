"""The command line: geoeq train | compare | evaluate | predict | data | calibrate | check | md | sample | export ..."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import geoeq
import geoeq.cli.make as factory_command
import geoeq.cli.md as md
import geoeq.cli.uncertainty as uncertainty
from geoeq.cli.parity import add_parity, run_parity
from geoeq.cli.train import add_train, run_train
from geoeq.errors import GeoeqError

__all__ = ["main"]

_INTERRUPTED = 130  # as shells count it: 128 and the number of the signal


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: what follows "geoeq"; None takes it from the process.

    Returns:
        The exit status: 0 if all went well, 1 if a check failed or a simulation was stopped by its rule, 2 for what is
        explained on stderr, 130 if interrupted (143 where a simulation was asked to end by SIGTERM).
    """
    arguments = _parse(argv)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # a class of one's own is named by its path, as in my_module.MyModel
    try:
        return _COMMANDS[arguments.command](arguments)
    except KeyboardInterrupt:
        print("Interrupted. The same command goes on where a training or simulation stopped.", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:  # the reader of a pipe, such as head, has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (GeoeqError, OSError) as error:
        if arguments.debug:
            raise
        print(" ".join(str(error).split("\n")), file=sys.stderr)
        return 2


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    takes = arguments.command in ("train", "compare")
    settings = [text for text in rest if takes and "=" in text and not text.startswith("-")]
    if len(settings) < len(rest):
        parser.error(f"unrecognized arguments: {' '.join(text for text in rest if text not in settings)}")
    if settings:  # argparse gives up a list of positionals at the first option between them
        arguments.settings += settings
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="geoeq", description="Geometric graph neural networks for molecules, materials and 3D point clouds."
    )
    parser.add_argument("--version", action="version", version=f"geoeq {geoeq.__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    add_train(commands.add_parser("train", help="train a model as a recipe says, or go on with a run that was killed"))

    compare = commands.add_parser("compare", help="train recipes for the same time each: one table, one picture")
    compare.add_argument("settings", nargs="+", metavar="RECIPE", help="as for train, and key=value put over them all")
    compare.add_argument("--budget", required=True, metavar="TIME", help="of training for each: 90s, 5min, 1h")
    compare.add_argument("--run", type=Path, metavar="FOLDER", help="for all of it; runs/compare-DATASET if not given")
    compare.add_argument("--sample", action="store_true", help="only the records that come with geoeq")
    compare.add_argument("--again", action="store_true", help="throw away earlier runs of these recipes in the folder")

    evaluate = commands.add_parser("evaluate", help="the errors of a trained model")
    evaluate.add_argument("run", type=Path, help="the folder of a run, such as runs/qm7-egnn")
    evaluate.add_argument("--split", metavar="PART", help="train, valid or test; both of the last two if not given")

    predict = commands.add_parser("predict", help="predict for the structures of a file, or for SMILES")
    predict.add_argument("run", type=Path, help="the folder of a run, such as runs/qm7-egnn")
    predict.add_argument("file", type=Path, nargs="?", help="structures: sdf, or what ASE reads (xyz, cif, traj ...)")
    predict.add_argument("--smiles", action="append", default=[], help="a molecule; may be given several times")
    predict.add_argument("-o", "--output", type=Path, help="out.xyz (extended) or out.csv; a table if not given")
    predict.add_argument(
        "--unit", action="append", default=[], metavar="NAME=UNIT", help="another unit for an output: gap=meV"
    )
    predict.add_argument("--batch-size", type=int, default=256, help="structures at once (256)")

    data = commands.add_parser("data", help="the data sets: list, fetch, prepare, info, make, doctor")
    actions = data.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="the data sets that geoeq knows")
    for name, text in (
        ("fetch", "download the published files, going on where it stopped, and check them"),
        ("prepare", "fetch, and make the cache of arrays"),
        ("info", "what a data set or a file holds"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("name", help="a data set" + (", or a structure file" if name == "info" else ""))
        if name != "fetch":
            action.add_argument("--sample", action="store_true", help="only the records that come with geoeq")
        if name == "prepare":
            text = "that read a large data set (as many as there are cores, up to 4)"
            action.add_argument("--processes", type=int, metavar="N", help=text)
            action.add_argument("--dask", metavar="ADDRESS", help="the workers of this scheduler read, on all machines")

    text = "what is wrong with data: labels, units, outliers, copies, leaks (geoeq doctor: with this machine)"
    patient = actions.add_parser("doctor", help=text)
    patient.add_argument("name", help="a data set, a card, or a structure file")
    patient.add_argument("--sample", action="store_true", help="only the records that come with geoeq")
    patient.add_argument("--full", action="store_true", help="measure all structures, not some")
    patient.add_argument("--cutoff", type=float, metavar="Å", help="of neighbours (5)")
    patient.add_argument("--split", metavar="NAME", help="of the card; its default if not given")
    patient.add_argument("--targets", metavar="A,B", help="labels that have to be there, as in energy,forces")
    patient.add_argument("--key", action="append", default=[], metavar="NAME=KEY", help="of a file: forces=REF_forces")
    patient.add_argument("--strict", action="store_true", help="warnings count as errors")
    patient.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="for doctor.json and doctor.png")

    factory_command.add_parser(actions)

    check = commands.add_parser("check", help="the symmetries of a model, and its forces: what is broken, and where")
    check.add_argument("model", help="the folder of a run, geoeq.models.EGNN, my_module:my_function, or a calculator")
    check.add_argument("--layers", action="store_true", help="watch every layer, and name the first that breaks it")
    check.add_argument("--data", type=Path, metavar="FILE", help="structures to try; random ones if not given")
    check.add_argument("--elements", metavar="H,C,O", help="elements of random structures")
    check.add_argument("--cutoff", type=float, metavar="Å", help="where the model does not say it itself")
    check.add_argument("--group", choices=("E(3)", "SE(3)"), help="SE(3): reflections need not be respected")
    check.add_argument(
        "--conservative",
        action=argparse.BooleanOptionalAction,
        help="forces claim to be minus the derivative of the energy",
    )
    check.add_argument("--seed", type=int, default=0, help="of structures and group elements (0)")
    check.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="for check.json and check.png")

    md.add_parser(commands)
    uncertainty.add_parsers(commands)

    export = commands.add_parser("export", help="a trained potential as a file that is run without its network")
    export.add_argument("run", type=Path, help="the folder of a run, such as runs/qm7-egnn")
    export.add_argument("output", type=Path, metavar="OUT", help="OUT.pt2, with OUT-compiled.pt2; OUT.pt for metatomic")
    export.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="to machine code, in minutes; where there is a C++ compiler if not given",
    )
    export.add_argument("--dtype", choices=("float32", "float64"), help="of the model; that of the run if not given")
    export.add_argument("--device", default="cpu", help="for which it is made (cpu)")
    export.add_argument("--data", type=Path, metavar="FILE", help="structures to compare too, besides random ones")

    commands.add_parser("doctor", help="what is installed and available here, and why something is not")

    add_parity(commands.add_parser("parity", help="compare networks with the numbers of their authors' own code"))
    return parser


def _compare(arguments: argparse.Namespace) -> int:
    from geoeq.resources import import_extra

    console = import_extra("rich.console", "train").Console()
    from geoeq.training.budget import parse_budget
    from geoeq.training.evaluation.comparison import compare_recipes
    from geoeq.training.parsing import find_recipe

    comparison = compare_recipes(
        [find_recipe(text) for text in arguments.settings if "=" not in text],
        parse_budget(arguments.budget),
        console,
        settings=[text for text in arguments.settings if "=" in text] + ["sample=true"] * arguments.sample,
        folder=arguments.run,
        again=arguments.again,
    )
    return 0 if len(comparison.finished) == len(comparison.contenders) else 1


def _evaluate(arguments: argparse.Namespace) -> int:
    from geoeq.resources import import_extra

    console = import_extra("rich.console", "train").Console()
    from geoeq.training.evaluation.evaluate import evaluate

    evaluate(arguments.run, console, arguments.split)
    return 0


def _predict(arguments: argparse.Namespace) -> int:
    from geoeq.errors import InputError
    from geoeq.resources import import_extra

    console = import_extra("rich.console", "train").Console()
    from geoeq.training.evaluation.predict import predict

    pairs = [text.partition("=") for text in arguments.unit]
    for name, equals, unit in pairs:
        if not (name and equals and unit):
            raise InputError(f"--unit {name}{equals}{unit}: write it as in --unit gap=meV.")
    predict(
        arguments.run,
        console,
        file=arguments.file,
        smiles=arguments.smiles,
        output=arguments.output,
        units={name: unit for name, _, unit in pairs},
        batch_size=arguments.batch_size,
    )
    return 0


def _data(arguments: argparse.Namespace) -> int:
    if arguments.action == "doctor":
        return _data_doctor(arguments)
    import geoeq.cli.data as commands

    if arguments.action == "list":
        lines = commands.list_lines()
    elif arguments.action == "fetch":
        lines = commands.fetch_lines(arguments.name)
    elif arguments.action == "make":
        lines = factory_command.make(arguments)
    elif arguments.action == "prepare":
        lines = commands.prepare_lines(
            arguments.name, sample=arguments.sample, processes=arguments.processes, dask=arguments.dask
        )
    else:
        lines = commands.info_lines(arguments.name, sample=arguments.sample)
    print("\n".join(lines))
    return 0


def _data_doctor(arguments: argparse.Namespace) -> int:
    from geoeq.resources import import_extra

    import_extra("matplotlib", "train")
    from geoeq.cli.data_doctor import doctor

    lines, healthy = doctor(
        arguments.name,
        sample=arguments.sample,
        full=arguments.full,
        cutoff=arguments.cutoff,
        split=arguments.split,
        targets=None if arguments.targets is None else arguments.targets.split(","),
        keys=arguments.key,
        strict=arguments.strict,
        output=arguments.output,
    )
    print("\n".join(lines))
    return 0 if healthy else 1


def _check(arguments: argparse.Namespace) -> int:
    from geoeq.resources import import_extra

    import_extra("matplotlib", "train")
    from geoeq.cli.check import check

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
    )
    print("\n".join(lines))
    return 0 if passed else 1


def _export(arguments: argparse.Namespace) -> int:
    import torch

    from geoeq.data.structures import read_structures
    from geoeq.simulate.engines.export import export_potential

    dtype = getattr(torch, arguments.dtype) if arguments.dtype else None
    if arguments.output.suffix == ".pt":
        from geoeq.simulate.engines.metatomic import export_metatomic

        error = export_metatomic(arguments.run, arguments.output, device=arguments.device, dtype=dtype)
        print(f"{arguments.output}: a model of metatomic, as the model gives it, to {error:.1e}")
        return 0
    frames = read_structures(arguments.data) if arguments.data else []
    export = export_potential(
        arguments.run,
        arguments.output,
        device=arguments.device,
        dtype=dtype,
        compiled=arguments.compile,
        structures=[frame.atoms for frame in frames],
    )
    print(f"{export.program}: as the model gives it, to {export.error:.1e}")
    print(f"{export.compiled}: compiled, the same" if export.compiled else f"Nothing is compiled: {export.note}.")
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from geoeq.cli.doctor import doctor_lines

    print("\n".join(doctor_lines()))
    return 0


_COMMANDS = {
    "train": run_train,
    "compare": _compare,
    "evaluate": _evaluate,
    "predict": _predict,
    "data": _data,
    "calibrate": uncertainty.run_calibrate,
    "check": _check,
    "md": md.run,
    "export": _export,
    "doctor": _doctor,
    "parity": run_parity,
    "sample": uncertainty.run_sample,
}
