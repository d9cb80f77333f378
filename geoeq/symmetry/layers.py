"""Which layer of a network is the first to break a symmetry, and which of its input irreps do it?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch_geometric.data import Batch

from geoeq.errors import InputError
from geoeq.geometry.groups import (
    Element,
    Symmetry,
    named_output,
    random_element,
    relative_error,
    symmetries_of,
    turns_of,
)
from geoeq.geometry.random_structures import random_batch
from geoeq.symmetry.equivariance import dtype_of
from geoeq.symmetry.functions import INVARIANT_FEATURES
from geoeq.symmetry.hooks import record_calls
from geoeq.symmetry.pair import LayerError, Pair

__all__ = ["Culprit", "LayerError", "LayerReport", "layer_report"]

LIMITS = {torch.float64: 1e-9, torch.float32: 1e-4}


@dataclass(frozen=True)
class Culprit:
    """The first layer whose inputs agree and whose output does not.

    Attributes:
        name: of the layer in its network, or the words for a place between layers.
        kind: its class.
        irreps_in: input irreps that break the symmetry. Empty where none does.
        irreps_out: output irreps that are wrong.
        explanation: the finding in a sentence.
    """

    name: str
    kind: str
    irreps_in: tuple[str, ...]
    irreps_out: tuple[str, ...]
    explanation: str


@dataclass(frozen=True)
class LayerReport:
    """The errors of all layers, and the culprit of each symmetry that is broken."""

    layers: dict[str, tuple[LayerError, ...]]
    culprits: dict[str, Culprit]

    @property
    def passed(self) -> bool:
        """Whether no layer breaks a symmetry."""
        return not self.culprits

    def __str__(self) -> str:
        """A table, a column for each symmetry, and what was found."""
        names = [f"{row.name} ({row.kind})" for row in next(iter(self.layers.values()))]
        width = max(map(len, [*names, "layer"]))
        lines = [f"  {'layer':<{width}}" + "".join(f"  {symmetry:>11}" for symmetry in self.layers)]
        for place, name in enumerate(names):
            cells = [
                f"  {rows[place].output:11.1e}" if place < len(rows) else f"  {'-':>11}"
                for rows in self.layers.values()
            ]
            lines.append(f"  {name:<{width}}" + "".join(cells))
        return "\n".join([*lines, *(f"  {name}: {found.explanation}" for name, found in self.culprits.items())])

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {
            "passed": self.passed,
            "layers": {key: [_plain(asdict(row)) for row in rows] for key, rows in self.layers.items()},
            "culprits": {key: asdict(found) for key, found in self.culprits.items()},
        }


def layer_report(
    network: nn.Module,
    batch: Batch | None = None,
    *,
    symmetries: Sequence[Symmetry] | None = None,
    stated: float | None = None,
    seed: int = 0,
) -> LayerReport:
    """Watch every layer of a network on structures and on the same after a group element.

    A layer is a module with ``irreps_in`` and ``irreps_out`` whose first argument are its features; embeddings and
    heads of geoeq are watched too. Permutations are compared for what belongs to nodes.

    Args:
        network: maps Data to anything.
        batch: structures to try; by default ``random_batch()`` in the dtype of the network.
        symmetries: by default rotation, reflection, translation and permutation, as far as the group has them.
        stated: error of rotations that counts as none; by default what network and layers state themselves.
        seed: of the group elements.

    Raises:
        InputError: the network has no such layer.
    """
    data = random_batch(dtype=dtype_of(network, batch)) if batch is None else batch
    if symmetries is None:
        symmetries = [name for name in symmetries_of(getattr(network, "group", "E(3)")) if name != "batch"]
    stated = float(getattr(network, "equivariance_error", 0.0)) if stated is None else stated
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        elements = {name: random_element(name, data, generator, turns_of(network)) for name in symmetries}
        walks = {name: _Walk(network, data, element, name, stated) for name, element in elements.items()}
        if not all(walk.rows for walk in walks.values()):
            raise InputError(f"{type(network).__name__} has no layer with irreps_in and irreps_out.")
        hidden = {place for walk in walks.values() for place in walk.hidden}
        layers, culprits = {}, {}
        for symmetry, walk in walks.items():
            layers[str(symmetry)] = tuple(row for place, row in enumerate(walk.rows) if place not in hidden)
            culprit = walk.culprit()
            if culprit is not None:
                culprits[str(symmetry)] = culprit
    return LayerReport(layers, culprits)


class _Walk:
    """All calls of a network beside the same calls after a group element."""

    def __init__(self, network: nn.Module, data: Batch, element: Element, symmetry: Symmetry, stated: float) -> None:
        with record_calls(network) as before:
            outputs = network(data)
        with record_calls(network) as after:
            moved = network(element.on_data(data, INVARIANT_FEATURES))
        self.pairs = [Pair(one, two, element, symmetry == "permutation") for one, two in zip(before, after)]
        self.limit = LIMITS[data.pos.dtype]
        turns = symmetry in ("rotation", "reflection")
        if turns:
            self.limit = max(self.limit, stated)
        self.rows = [pair.errors(max(self.limit, pair.before.own_error if turns else 0.0)) for pair in self.pairs]
        self.error = _broken(outputs, moved, element)

    @property
    def hidden(self) -> set[int]:
        """Places of layers inside layers that have their features in another layout: the outer one is right."""
        return {place for place, row in enumerate(self.rows) if _has_its_own_layout(row, self.rows[place + 1 :])}

    def culprit(self) -> Culprit | None:
        """The first layer whose input agrees and whose output does not; else the place between layers."""
        for pair, row in zip(self.pairs, self.rows):
            if row.output > row.tolerance and (row.input is None or row.input <= row.tolerance):
                return _accuse(pair, row)
        seen = [row for place, row in enumerate(self.rows) if place not in self.hidden]
        return _outside(seen, self.error) if self.error > self.limit else None


def _has_its_own_layout(row: LayerError, later: Sequence[LayerError]) -> bool:
    """A layer inside another may have its features in another layout: where the outer one is right, so is this."""
    outer = next((other for other in later if row.name.startswith(f"{other.name}.")), None)
    wrong = row.input is not None and row.input > row.tolerance
    return wrong and outer is not None and outer.output <= outer.tolerance


def _broken(before: Any, after: Any, element: Element) -> float:
    """Error of the outputs of the network, where these are named."""
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        return 0.0
    errors = [
        relative_error(named_output(name, after[name]).value, element.on_output(named_output(name, value)))
        for name, value in before.items()
    ]
    return max(errors, default=0.0)


def _outside(rows: Sequence[LayerError], error: float) -> Culprit:
    """Where no layer breaks the symmetry, but the network does."""
    for row in rows:
        if row.input is not None and row.input > row.tolerance:
            text = (
                f"the features are wrong already as they come to {row.name} ({row.kind}), and no layer before it did "
            )
            text += f"it: look at what is done between the layers (error {row.input:.1e})."
            return Culprit(f"before {row.name}", row.kind, (), (), text)
    text = f"no layer breaks it, but the network does, by {error:.1e}: look at what is done after the last layer."
    return Culprit(f"after {rows[-1].name}" if rows else "network", "", (), (), text)


def _accuse(pair: Pair, row: LayerError) -> Culprit:
    """The layer and the irreps of its input that break the symmetry."""
    wrong = pair.wrong_outputs(row.tolerance)
    where = f"{row.name} ({row.kind}) breaks it: its input is right, and its output is wrong by {row.output:.1e}"
    where += f" in {', '.join(wrong)}" if wrong else ""
    if pair.before.x is None:
        return Culprit(row.name, row.kind, (), wrong, f"{where}; it takes the structure itself.")
    graphs = pair.before.graph, pair.after.graph
    if graphs[0] is not None and graphs[1] is not None and not pair.permuted:
        one, two = graphs[0].edge_attr, graphs[1].edge_attr
        if one is not None and two is not None and relative_error(two, one) > row.tolerance:
            text = f"{where}; the attributes of its edges are not invariant."
            return Culprit(row.name, row.kind, (), wrong, text)
    zeros = torch.zeros(pair.before.irreps.dim)
    if pair.again(zeros) > row.tolerance:
        text = f"{where}; also where its input is zero, so that it comes from the graph or from a constant."
        return Culprit(row.name, row.kind, (), wrong, text)
    alone = pair.guilty(row.tolerance, alone=True)
    if alone:
        text = f"{where}; of its input irreps {', '.join(alone)} do so alone."
        return Culprit(row.name, row.kind, alone, wrong, text)
    needed = pair.guilty(row.tolerance, alone=False)
    text = f"{where}; it is right without {' or without '.join(needed)} of its input irreps." if needed else f"{where}."
    return Culprit(row.name, row.kind, needed, wrong, text)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity."""
    return {key: str(value) if value in (float("inf"),) else value for key, value in row.items()}
