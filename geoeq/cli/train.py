"""The body of ``geoeq train``, and the settings that have options of their own."""

from __future__ import annotations

import argparse

__all__ = ["add_train", "run_train"]


def add_train(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``geoeq train``."""
    parser.add_argument("recipe", help="a YAML file, or one that comes with geoeq, such as qm9/egnn")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="put over the recipe: optimizer.lr=1e-3")
    parser.add_argument("--sample", action="store_true", help="only the records that come with geoeq; needs no network")
    parser.add_argument("--again", action="store_true", help="throw away an earlier run in the same folder")
    parser.add_argument("--no-doctor", action="store_true", help="train also on data in which the doctor finds errors")
    parser.add_argument("--devices", type=int, metavar="N", help="GPUs of each machine, or processes on CPUs")
    parser.add_argument("--num-nodes", type=int, metavar="N", help="machines; start it on each with torchrun or srun")
    parser.add_argument("--strategy", choices=("ddp", "fsdp"), help="fsdp: weights are shared out among devices")
    parser.add_argument(
        "--plan", action="store_true", help="which batches fit, and how long an epoch takes; no training"
    )


def run_train(arguments: argparse.Namespace) -> int:
    """Train, or plan a training; the exit status."""
    from geoeq.resources import import_extra

    console = import_extra("rich.console", "train").Console()
    from geoeq.training.distributed import launched
    from geoeq.training.parsing import find_recipe, read_recipe

    def notify(line: str) -> None:
        if not launched():  # of several processes, the one that starts them says it
            console.print(line, highlight=False, soft_wrap=True)

    file = find_recipe(arguments.recipe)
    settings = [*arguments.settings, *_given(arguments)]
    recipe = read_recipe(file, settings, notify)
    if arguments.plan:
        from geoeq.training.plan import print_plan

        print_plan(recipe, file, console)
        return 0
    from geoeq.training.run import train

    if recipe.devices > 1 and not launched():
        from geoeq.training.distributed import launch

        command = ["train", str(file), *settings, *(["--again"] if arguments.again else [])]
        return launch(recipe, [*(["--debug"] if arguments.debug else []), *command])
    train(recipe, file, console, again=arguments.again)
    return 0


def _given(arguments: argparse.Namespace) -> list[str]:
    """The options as settings of a recipe."""
    options = {"devices": arguments.devices, "num_nodes": arguments.num_nodes, "strategy": arguments.strategy}
    settings = [f"{name}={value}" for name, value in options.items() if value is not None]
    return settings + ["sample=true"] * arguments.sample + ["doctor=false"] * arguments.no_doctor
