"""Which layer of a network is the first to break a symmetry, and which of its input irreps do it?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, get_args

import torch
from e3nn import o3
from torch import Tensor, nn
from torch_geometric.data import Batch

from geoeq.errors import InputError
from geoeq.random_structures import random_batch
from geoeq.symmetry.equivariance import dtype_of
from geoeq.symmetry.functions import INVARIANT_FEATURES
from geoeq.symmetry.group import Element, Output, Symmetry, named_output, random_element, relative_error
from geoeq.symmetry.watch import Call, watched

__all__ = ["Culprit", "LayerError", "LayerReport", "layer_report"]

LIMITS = {torch.float64: 1e-9, torch.float32: 1e-4}


@dataclass(frozen=True)
class LayerError:
    """Errors of one call of a layer.

    Attributes:
        name: of the layer in its network.
        kind: its class.
        input: error of its input features; None where it takes structures.
        output: of its output.
        tolerance: the largest error that passes.
    """

    name: str
    kind: str
    input: float | None
    output: float
    tolerance: float


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
        symmetries: by default rotation, reflection (but for the group SE(3)), translation and permutation.
        stated: error of rotations that counts as none; by default what network and layers state themselves.
        seed: of the group elements.

    Raises:
        InputError: the network has no such layer.
    """
    dtype = dtype_of(network, batch)
    data = random_batch(dtype=dtype) if batch is None else batch
    if symmetries is None:
        known: tuple[Symmetry, ...] = get_args(Symmetry)[:-1]
        proper = getattr(network, "group", "E(3)") == "SE(3)"
        symmetries = [name for name in known if not (proper and name == "reflection")]
    stated = float(getattr(network, "equivariance_error", 0.0)) if stated is None else stated
    generator = torch.Generator().manual_seed(seed)
    layers: dict[str, tuple[LayerError, ...]] = {}
    culprits: dict[str, Culprit] = {}
    for symmetry in symmetries:
        element = random_element(symmetry, data, generator)
        with torch.no_grad():
            with watched(network) as before:
                outputs = network(data)
            with watched(network) as after:
                found = network(element.on_data(data, INVARIANT_FEATURES))
            if not before:
                raise InputError(f"{type(network).__name__} has no layer with irreps_in and irreps_out.")
            pairs = [_Pair(one, two, element, symmetry == "permutation") for one, two in zip(before, after)]
            limits = [_limit(pair, symmetry, LIMITS[dtype], stated) for pair in pairs]
            rows = [pair.errors(limit) for pair, limit in zip(pairs, limits)]
            kept = [place for place, row in enumerate(rows) if not _has_its_own_layout(row, rows[place + 1 :])]
            pairs, rows = [pairs[place] for place in kept], [rows[place] for place in kept]
            layers[symmetry] = tuple(rows)
            culprit = _culprit(pairs, rows)
            if culprit is None and (error := _broken(outputs, found, element)) > max(limits):
                culprit = _outside(rows, error)
        if culprit is not None:
            culprits[symmetry] = culprit
    return LayerReport(layers, culprits)


@dataclass(frozen=True)
class _Pair:
    """The same call of a layer before and after a group element."""

    before: Call
    after: Call
    element: Element
    permuted: bool

    def moved(self, output: Output) -> Tensor:
        """An output after the group element; rows that are not of nodes keep their order."""
        rows = len(output.value) == len(self.element.order)
        level = "edge" if output.level == "node" and not rows else output.level
        return self.element.on_output(replace(output, level=level))

    def errors(self, tolerance: float) -> LayerError:
        """Of input and output."""
        known = None
        if self.before.x is not None and self.after.x is not None:
            known = self._error(self.after.x, Output(self.before.x, "node", self.before.irreps))
        worst = self._largest(self.before.outputs, self.after.outputs)
        return LayerError(self.before.name, self.before.kind, known, worst, tolerance)

    def _error(self, found: Tensor, before: Output) -> float:
        of_edges = before.level != "graph" and len(before.value) != len(self.element.order)
        if self.permuted and of_edges:
            return 0.0  # edges are in another order, and are not compared
        return relative_error(found, self.moved(before))

    def _largest(self, before: dict[str, Output], after: dict[str, Output]) -> float:
        return max((self._error(after[name].value, output) for name, output in before.items()), default=0.0)

    def again(self, keep: Tensor) -> float:
        """Error of the output where only some columns of the input are kept."""
        if self.before.x is None:
            return 0.0
        x = self.before.x * keep.to(self.before.x)
        moved = self.moved(Output(x, "node", self.before.irreps))
        return self._largest(self.before.again(x), self.after.again(moved))

    def wrong_outputs(self, tolerance: float) -> tuple[str, ...]:
        """Names or irreps of the outputs that are wrong."""
        wrong = []
        for name, output in self.before.outputs.items():
            if name != "features" or output.irreps is None:
                wrong += [name] if self._error(self.after.outputs[name].value, output) > tolerance else []
                continue
            expected, found = self.moved(output), self.after.outputs[name].value
            for (mul, ir), columns in zip(output.irreps, output.irreps.slices()):
                if relative_error(found[..., columns], expected[..., columns]) > tolerance:
                    wrong.append(f"{mul}x{ir}")
        return tuple(wrong)


def _limit(pair: _Pair, symmetry: str, tolerance: float, stated: float) -> float:
    return max(tolerance, stated, pair.before.own_error) if symmetry in ("rotation", "reflection") else tolerance


def _culprit(pairs: Sequence[_Pair], rows: Sequence[LayerError]) -> Culprit | None:
    for pair, row in zip(pairs, rows):
        if row.output > row.tolerance and (row.input is None or row.input <= row.tolerance):
            return _accuse(pair, row)
    return None


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


def _accuse(pair: _Pair, row: LayerError) -> Culprit:
    """The layer and the irreps of its input that break the symmetry."""
    irreps = pair.before.irreps
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
    zeros = torch.zeros(irreps.dim)
    if pair.again(zeros) > row.tolerance:
        text = f"{where}; also where its input is zero, so that it comes from the graph or from a constant."
        return Culprit(row.name, row.kind, (), wrong, text)
    alone = _guilty(pair, irreps, row.tolerance, alone=True)
    if alone:
        text = f"{where}; of its input irreps {', '.join(alone)} do so alone."
        return Culprit(row.name, row.kind, alone, wrong, text)
    needed = _guilty(pair, irreps, row.tolerance, alone=False)
    text = f"{where}; it is right without {' or without '.join(needed)} of its input irreps." if needed else f"{where}."
    return Culprit(row.name, row.kind, needed, wrong, text)


def _guilty(pair: _Pair, irreps: o3.Irreps, tolerance: float, *, alone: bool) -> tuple[str, ...]:
    """Irreps that break the symmetry with all others zero, or without which it is kept."""
    found = []
    for (mul, ir), columns in zip(irreps, irreps.slices()):
        keep = torch.zeros(irreps.dim) if alone else torch.ones(irreps.dim)
        keep[columns] = 1.0 if alone else 0.0
        if (pair.again(keep) > tolerance) == alone:
            found.append(f"{mul}x{ir}")
    return tuple(found)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity."""
    return {key: str(value) if value in (float("inf"),) else value for key, value in row.items()}
