"""``geoeq potentials``: list, describe, fetch and convert published potentials."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from geoeq.models.potential_cards import PotentialCard

__all__ = ["ACTIONS", "add_potentials", "run_potentials"]

#: Action and its summary, in the order of ``geoeq potentials --help``.
ACTIONS = {
    "list": "list the published potentials that geoeq knows",
    "info": "describe a published potential: origin, licence, citation, training data, what it is and is not good for",
    "fetch": "fetch a published potential into the cache, from where its name can be used in place of a run",
    "convert": "convert a potential in the file of another package (SevenNet) to a checkpoint of geoeq",
}


def add_potentials(parser: argparse.ArgumentParser) -> None:
    """Add the actions of ``geoeq potentials`` with their options."""
    parser.epilog = "Example: geoeq potentials fetch 7net-0"
    group = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions = {
        name: group.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        for name, summary in ACTIONS.items()
    }
    actions["list"].epilog = "Example: geoeq potentials list"
    for name in ("info", "fetch"):
        actions[name].epilog = f"Example: geoeq potentials {name} 7net-0"
        actions[name].add_argument("name", help="name of a published potential, such as 7net-0")
    actions["fetch"].add_argument(
        "--file",
        type=Path,
        metavar="WHEEL",
        help="wheel that was downloaded by hand, or the potential's file in it (default: pip downloads the wheel)",
    )
    actions["fetch"].add_argument("--again", action="store_true", help="replace a potential that was fetched already")
    convert = actions["convert"]
    convert.epilog = "Example: geoeq potentials convert checkpoint_best.pth -o potentials/mine"
    convert.add_argument("file", type=Path, help="checkpoint file of SevenNet, such as checkpoint_best.pth")
    convert.add_argument(
        "--modality",
        metavar="NAME",
        help="level of theory, for a network that has several (default: the only one)",
    )
    convert.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="folder to write, which must not exist or must be empty",
    )


def run_potentials(arguments: argparse.Namespace) -> int:
    """Run one action, and return the exit status."""
    if arguments.action == "list":
        lines = _list_lines()
    elif arguments.action == "info":
        lines = _info_lines(arguments.name)
    elif arguments.action == "fetch":
        lines = _fetch(arguments)
    else:
        lines = _convert(arguments)
    print("\n".join(lines))
    return 0


def _list_lines() -> list[str]:
    from geoeq.models.potential_cards import potential_cards

    titles: dict[str, str] = {}
    states: dict[str, str] = {}
    for card in potential_cards():
        titles |= dict.fromkeys(card.names, card.title)
        titles |= {f"{card.name}/{modality}": f"{card.title}: {theory}" for modality, theory in card.modalities.items()}
        states |= {name: _state(card, name) for name in card.names}
    width = max(map(len, titles))
    return [f"{name:<{width}}  {title}  [{states[name]}]" for name, title in titles.items()]


def _state(card: PotentialCard, name: str) -> str:
    from geoeq.models.potential_cards import potential_folder

    if card.package is None:
        return "download by hand"
    return "fetched" if potential_folder(name).is_dir() else "not fetched"


def _info_lines(name: str) -> list[str]:
    from geoeq.models.potential_cards import load_potential_card

    card = load_potential_card(name)
    package = card.package
    origin = f"in {package.wheel} ({package.requirement} of the package index)" if package else f"at {card.url}"
    lines = [f"{card.name}: {card.title}", f"file: {card.file}, {origin}", f"sha256: {card.sha256 or 'unknown'}"]
    lines += [f"project: {card.url}"] if package else []
    lines += [
        f"licence: {card.licence}",
        f"citation: {card.citation}",
        f"elements: {', '.join(card.elements) or 'those in the file'}",
        f"training data: {card.training_data}",
        f"level of theory: {card.theory}",
        *(f"modality {card.name}/{modality}: {theory}" for modality, theory in card.modalities.items()),
        *(f"good for: {use}" for use in card.good_for),
        *(f"not for: {use}" for use in card.not_for),
        *(f"state of {known}: {_state(card, known)}" for known in card.names),
    ]
    return lines if package else [*lines, card.by_hand]


def _fetch(arguments: argparse.Namespace) -> list[str]:
    from geoeq.models.potential_cards import load_potential_card
    from geoeq.simulate import fetch_potential

    card = load_potential_card(arguments.name)
    folders = fetch_potential(arguments.name, arguments.file, again=arguments.again)
    lines = [f"{name}  {folder}" for name, folder in folders.items()]
    return [
        *lines,
        f"licence: {card.licence}",
        f"citation: {card.citation}",
        *(f"not for: {use}" for use in card.not_for),
    ]


def _convert(arguments: argparse.Namespace) -> list[str]:
    from geoeq.simulate import convert_potential

    meta = convert_potential(arguments.file, arguments.output, arguments.modality)
    published = meta.get("published")
    known = [f"It is {published['name']}. Licence: {published['licence']}"] if published else []
    return [f"The potential is in '{arguments.output}'.", *known]
