"""Find the first layer of a network that breaks a symmetry, and the input irreps that cause it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

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
from geoeq.symmetry.grid_error import stated_error
from geoeq.symmetry.hooks import LayerError, Pair, record_calls

__all__ = ["Culprit", "LayerReport", "layer_report"]

#: Largest relative error that passes.
LIMITS = {torch.float64: 1e-9, torch.float32: 1e-4}

#: Symmetries that grids break.
TURNS: tuple[Symmetry, ...] = ("rotation", "reflection")


@dataclass(frozen=True)
class Culprit:
    """First layer with correct inputs and wrong output.

    Attributes:
        name: name of the layer in its network, or a description of a position between layers.
        kind: class of the layer.
        irreps_in: input irreps that break the symmetry; empty if there are none.
        irreps_out: wrong output irreps.
        explanation: the finding as a sentence.
    """

    name: str
    kind: str
    irreps_in: tuple[str, ...]
    irreps_out: tuple[str, ...]
    explanation: str


@dataclass(frozen=True)
class LayerReport:
    """Errors of all layers, and the culprit of each broken symmetry."""

    layers: dict[str, tuple[LayerError, ...]]
    culprits: dict[str, Culprit]

    @property
    def passed(self) -> bool:
        """Whether all symmetries are respected."""
        return not self.culprits

    def __str__(self) -> str:
        """Return a table with a column for each symmetry, and the explanations."""
        names = [f"{row.name} ({row.kind})" for row in next(iter(self.layers.values()))]
        width = max(map(len, [*names, "layer"]))
        lines = [f"  {'layer':<{width}}" + "".join(f"  {symmetry:>11}" for symmetry in self.layers)]
        for index, name in enumerate(names):
            cells = [
                f"  {rows[index].output:11.1e}" if index < len(rows) else f"  {'-':>11}"
                for rows in self.layers.values()
            ]
            lines.append(f"  {name:<{width}}" + "".join(cells))
        return "\n".join([*lines, *(f"  {name}: {culprit.explanation}" for name, culprit in self.culprits.items())])

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "passed": self.passed,
            "layers": {key: [_plain(asdict(row)) for row in rows] for key, rows in self.layers.items()},
            "culprits": {key: asdict(culprit) for key, culprit in self.culprits.items()},
        }


def layer_report(
    network: nn.Module,
    batch: Batch | None = None,
    *,
    symmetries: Sequence[Symmetry] | None = None,
    stated: float | None = None,
    seed: int = 0,
) -> LayerReport:
    """Compare every layer of a network on structures before and after a group element.

    A layer is a module with ``irreps_in`` and ``irreps_out`` whose first argument is its features; embeddings and heads
    of geoeq are included. For permutations, only quantities that belong to nodes are compared.

    Args:
        network: module that maps Data to any output.
        batch: test structures; by default ``random_batch()`` in the dtype of the network.
        symmetries: symmetries to check; by default rotation, reflection, translation and permutation, as far as they
            are in the group of the network.
        stated: error of rotations that is accepted; by default that of the grids of network and layers
            (``stated_error``).
        seed: random seed of the group elements.

    Raises:
        InputError: the network has no such layer.
    """
    data = random_batch(dtype=dtype_of(network, batch)) if batch is None else batch
    if symmetries is None:
        symmetries = [name for name in symmetries_of(getattr(network, "group", "E(3)")) if name != "batch"]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        elements = {name: random_element(name, data, generator, turns_of(network)) for name in symmetries}
        if stated is None:
            turned = [data, *(elements[name].on_data(data, INVARIANT_FEATURES) for name in TURNS if name in elements)]
            stated = max(stated_error(network, partial(_named_outputs, data)) for data in turned)
        walks = {name: _Walk(network, data, element, name, stated) for name, element in elements.items()}
        if not all(walk.rows for walk in walks.values()):
            raise InputError(f"{type(network).__name__} has no layer with irreps_in and irreps_out.")
        hidden = {index for walk in walks.values() for index in walk.hidden}
        layers, culprits = {}, {}
        for symmetry, walk in walks.items():
            layers[str(symmetry)] = tuple(row for index, row in enumerate(walk.rows) if index not in hidden)
            culprit = walk.culprit()
            if culprit is not None:
                culprits[str(symmetry)] = culprit
    return LayerReport(layers, culprits)


def _named_outputs(data: Data, network: nn.Module) -> Mapping[str, Tensor]:
    """Return the outputs of any network by name, as far as they are tensors."""
    outputs = network(data)
    named = outputs if isinstance(outputs, Mapping) else {"output": outputs}
    return {name: value for name, value in named.items() if isinstance(value, Tensor)}


class _Walk:
    """All calls of the layers of a network, paired with the same calls after a group element."""

    def __init__(self, network: nn.Module, data: Batch, element: Element, symmetry: Symmetry, stated: float) -> None:
        with record_calls(network) as before:
            outputs = network(data)
        with record_calls(network) as after:
            moved = network(element.on_data(data, INVARIANT_FEATURES))
        self.pairs = [Pair(one, two, element, symmetry == "permutation") for one, two in zip(before, after)]
        self.limit = LIMITS[data.pos.dtype]
        if symmetry in TURNS:
            self.limit = max(self.limit, stated)
        self.rows = [
            pair.errors(max(self.limit, *(call.own_error * (symmetry in TURNS) for call in (pair.before, pair.after))))
            for pair in self.pairs
        ]
        self.error = _output_error(outputs, moved, element)

    @property
    def hidden(self) -> set[int]:
        """Indices of nested layers with another feature layout inside a correct layer."""
        return {index for index, row in enumerate(self.rows) if _has_other_layout(row, self.rows[index + 1 :])}

    def culprit(self) -> Culprit | None:
        """Return the first layer with correct input and wrong output, or the position between layers."""
        for pair, row in zip(self.pairs, self.rows):
            if row.output > row.tolerance and (row.input is None or row.input <= row.tolerance):
                return _accuse(pair, row)
        visible = [row for index, row in enumerate(self.rows) if index not in self.hidden]
        return _between_layers(visible, self.error) if self.error > self.limit else None


def _has_other_layout(row: LayerError, later: Sequence[LayerError]) -> bool:
    """Return whether only the feature layout of a nested layer differs, because the outer layer is right."""
    outer = next((other for other in later if row.name.startswith(f"{other.name}.")), None)
    wrong = row.input is not None and row.input > row.tolerance
    return wrong and outer is not None and outer.output <= outer.tolerance


def _output_error(before: Any, after: Any, element: Element) -> float:
    """Return the error of the named outputs of the network."""
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        return 0.0
    errors = [
        relative_error(named_output(name, after[name]).value, element.on_output(named_output(name, value)))
        for name, value in before.items()
    ]
    return max(errors, default=0.0)


def _between_layers(rows: Sequence[LayerError], error: float) -> Culprit:
    """Locate the error if no layer breaks the symmetry, but the network does."""
    for row in rows:
        if row.input is not None and row.input > row.tolerance:
            text = (
                f"the input features of {row.name} ({row.kind}) are already wrong, although all layers before it are "
                f"right: look at the code between the layers (error {row.input:.1e})."
            )
            return Culprit(f"before {row.name}", row.kind, (), (), text)
    text = f"no layer breaks it, but the network does, by {error:.1e}: look at the code after the last layer."
    return Culprit(f"after {rows[-1].name}" if rows else "network", "", (), (), text)


def _accuse(pair: Pair, row: LayerError) -> Culprit:
    """Name the layer and the irreps of its input that break the symmetry."""
    wrong = pair.wrong_outputs(row.tolerance)
    where = f"{row.name} ({row.kind}) breaks it: its input is right, and its output is wrong by {row.output:.1e}"
    where += f" in {', '.join(wrong)}" if wrong else ""
    if pair.before.x is None:
        return Culprit(row.name, row.kind, (), wrong, f"{where}; it takes the structure, not features.")
    graphs = pair.before.graph, pair.after.graph
    if graphs[0] is not None and graphs[1] is not None and not pair.permuted:
        one, two = graphs[0].edge_attr, graphs[1].edge_attr
        if one is not None and two is not None and relative_error(two, one) > row.tolerance:
            text = f"{where}; the attributes of its edges are not invariant."
            return Culprit(row.name, row.kind, (), wrong, text)
    zeros = torch.zeros(pair.before.irreps.dim)
    if pair.again(zeros) > row.tolerance:
        text = f"{where}, even if its input is zero: the cause is the graph or a constant."
        return Culprit(row.name, row.kind, (), wrong, text)
    sufficient = pair.guilty(row.tolerance, alone=True)
    if sufficient:
        text = f"{where}; each of these input irreps breaks it by itself: {', '.join(sufficient)}."
        return Culprit(row.name, row.kind, sufficient, wrong, text)
    needed = pair.guilty(row.tolerance, alone=False)
    text = f"{where}; it is right without the input irreps {' or '.join(needed)}." if needed else f"{where}."
    return Culprit(row.name, row.kind, needed, wrong, text)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Replace infinity, which JSON lacks, by text."""
    return {key: str(value) if value in (float("inf"),) else value for key, value in row.items()}
