"""The rows of ``symmetry.py``: each is one line, a recipe, or a recipe and what is done to its network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import geoeq.models

__all__ = ["ROWS", "Row"]

Network = dict[str, Any]


def alone(network: Network) -> Network:
    """The network inside a recipe's wrapper, without it."""
    inside: Network = network["init_args"]["model"]
    return inside


def wrapped(class_path: str, **arguments: Any) -> Callable[[Network], Network]:
    """The network inside a recipe's wrapper, in another one."""

    def build(network: Network) -> Network:
        return {"class_path": class_path, "init_args": {**arguments, "model": alone(network)}}

    return build


def framed(**arguments: Any) -> Callable[[Network], Network]:
    return wrapped("geoeq.models.FrameAveraging", **arguments)


def canonicalized(class_path: str, **arguments: Any) -> Callable[[Network], Network]:
    """The network inside a recipe's wrapper, with a canonicalizer."""
    return wrapped("geoeq.models.Canonicalization", canonicalizer={"class_path": class_path, "init_args": arguments})


def learned(**arguments: Any) -> Callable[[Network], Network]:
    """The same, with frames of a small EGNN."""
    heads = [{"class_path": "geoeq.models.FrameVectors"}]
    network = {"width": 32, "layers": 2, "heads": heads, **arguments}
    canonicalizer = {"class_path": "geoeq.models.EGNN", "init_args": network}
    return canonicalized("geoeq.models.NetworkCanonicalizer", network=canonicalizer)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: as the table calls it.
        symmetry: where it comes from.
        recipe: of the task's folder.
        build: the model of the row, made of that of the recipe.
        auxiliary: losses of the model's own, and their weights.
    """

    name: str
    symmetry: str
    recipe: str
    build: Callable[[Network], Network] = lambda network: network
    auxiliary: Mapping[str, float] = field(default_factory=dict)

    @property
    def slug(self) -> str:
        """The name as a file's."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.name.lower()).strip("-")

    def missing(self) -> str | None:
        """The wrapper that this version of geoeq lacks."""
        network = {"class_path": "geoeq.models.Model", "init_args": {}}
        path = self.build({"class_path": "geoeq.models.Model", "init_args": {"model": network}})["class_path"]
        name = path.removeprefix("geoeq.models.")
        return name if name != path and not hasattr(geoeq.models, name) else None


PLAIN = (
    Row("GNN", "none", "gnn-frames-quick", alone),
    Row("GNN, rotated at random", "learned", "gnn-frames-quick", wrapped("augmentation.RandomTurns")),
    Row("GNN, all frames", "wrapped", "gnn-frames-quick", framed(frames="full")),
    Row("GNN, one frame at random", "wrapped, on average", "gnn-frames-quick", framed(frames="stochastic")),
    Row(
        "GNN, one frame, all in evaluation",
        "wrapped",
        "gnn-frames-quick",
        framed(frames="stochastic", evaluation="full"),
    ),
    Row("GNN, weighted frames", "wrapped", "gnn-frames-quick", framed(frames="weighted")),
    Row("GNN, canonical axes", "wrapped", "gnn-frames-quick", canonicalized("geoeq.models.PCACanonicalizer")),
    Row(
        "GNN, mean of 4 samples",
        "wrapped, on average",
        "gnn-frames-quick",
        wrapped("geoeq.models.GroupAveraging", over="E(3)", samples=4),
    ),
    Row(
        "GNN, soft",
        "as much as is learned",
        "gnn-frames-quick",
        wrapped("geoeq.models.SoftEquivariance", symmetries=["rotation", "reflection"]),
        {"equivariance": 1.0},
    ),
    Row("Transformer", "none", "transformer-frames-quick", alone),
    Row("Transformer, one frame, all in evaluation", "wrapped", "transformer-frames-quick"),
)

ROWS: dict[str, tuple[Row, ...]] = {
    "nbody": (
        Row("EGNN", "built in", "egnn-quick"),
        Row("SE(3)-Transformer", "built in", "se3_transformer-quick"),
        Row("FA-GNN", "8 frames in every layer", "fa_gnn-quick"),
        Row("PONITA", "built in, to an error", "ponita-quick"),
        *PLAIN,
        Row(
            "GNN, learned frame",
            "wrapped",
            "gnn-frames-quick",
            learned(
                node_inputs=["speed"], edge_inputs=["charge_product", "square_distance"], velocity=True, clamp=100.0
            ),
        ),
    ),
    "qm7": (
        Row("EGNN", "built in", "egnn"),
        Row("SE(3)-Transformer", "built in", "se3_transformer-quick"),
        Row("PONITA", "built in, to an error", "ponita-quick"),
        Row("FAENet", "none", "faenet-quick", alone),
        Row("FAENet, one frame, all in evaluation", "wrapped", "faenet-quick"),
        *PLAIN,
        Row("GNN, learned frame", "wrapped", "gnn-frames-quick", learned(update_positions=False)),
        Row("GNN, coordinates from distances", "wrapped", "gnn-frames-quick", wrapped("geoeq.models.TinvNN")),
    ),
}
