"""``geoeq train``: train a model from a recipe."""

from __future__ import annotations

import argparse
import dataclasses

from geoeq.cli.options import new_console
from geoeq.trust import import_from_current_folder

__all__ = ["add_train", "run_train"]


def add_train(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``geoeq train``."""
    parser.epilog = "Example: geoeq train qm7/egnn epochs=20 optimizer.lr=1e-3"
    add = parser.add_argument
    add(
        "recipe",
        help="path of a recipe (a YAML file), or name of a shipped recipe such as qm7/egnn (geoeq recipes lists them)",
    )
    add(
        "settings",
        nargs="*",
        default=[],
        metavar="key=value",
        help="values that override those of the recipe, such as optimizer.lr=1e-3",
    )
    add("--sample", action="store_true", help="use only the small sample of the data set that is shipped with geoeq")
    add("--again", action="store_true", help="delete an earlier run in the same folder instead of resuming it")
    add("--no-doctor", action="store_true", help="skip the check of the data before training")
    add(
        "--devices",
        type=int,
        metavar="N",
        help="number of GPUs per machine, or of processes on a CPU (default: the recipe's devices)",
    )
    add(
        "--num-nodes",
        type=int,
        metavar="N",
        help="number of machines; start the command on each of them with torchrun or srun "
        "(default: the recipe's num_nodes)",
    )
    add(
        "--strategy",
        choices=("ddp", "fsdp"),
        help="distribution of the model over devices: ddp copies all weights to each device, fsdp shards them "
        "(default: the recipe's strategy)",
    )
    add(
        "--plan",
        action="store_true",
        help="report which batch sizes fit into memory and how long an epoch takes, without training",
    )


def run_train(arguments: argparse.Namespace) -> int:
    """Train, or plan a training, and return the exit status."""
    console = new_console()
    import_from_current_folder()  # a recipe names the user's own classes by class path
    from geoeq.training.distributed import launched
    from geoeq.training.parsing import find_recipe, read_recipe

    def notify(line: str) -> None:
        if not launched():  # with several processes, only the one that starts them prints
            console.print(line, highlight=False, soft_wrap=True)

    file = find_recipe(arguments.recipe)
    settings = [*_option_settings(arguments), *arguments.settings]  # key=value settings replace options
    recipe = read_recipe(file, settings, notify)
    if arguments.plan:
        from geoeq.training.plan import print_plan

        print_plan(recipe, file, console, settings)
        return 0
    from geoeq.training.folder import RunFolder, choose_folder
    from geoeq.training.run import train

    folder = choose_folder(recipe, file, settings, again=arguments.again)
    if folder != recipe.folder(file):
        changes = RunFolder(recipe.folder(file)).changes(recipe)
        notify(
            f"The folder '{recipe.folder(file)}' contains another run"
            f"{f' ({changes[0]})' if changes else ''}; this one is in '{folder}'."
        )
    settings.append(f"run={folder}")
    recipe = dataclasses.replace(recipe, run=str(folder))
    if recipe.devices > 1 and not launched():
        from geoeq.training.distributed import launch

        command = ["train", str(file), *settings, *(["--again"] if arguments.again else [])]
        return launch(recipe, [*(["--debug"] if arguments.debug else []), *command])
    train(recipe, file, console, again=arguments.again, settings=settings)
    return 0


def _option_settings(arguments: argparse.Namespace) -> list[str]:
    """Return the options as settings of a recipe."""
    options = {"devices": arguments.devices, "num_nodes": arguments.num_nodes, "strategy": arguments.strategy}
    settings = [f"{name}={value}" for name, value in options.items() if value is not None]
    return settings + ["sample=true"] * arguments.sample + ["doctor=false"] * arguments.no_doctor
