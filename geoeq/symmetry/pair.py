"""A call of a layer beside the same call after a group element."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from geoeq.geometry.groups import Element, Output, relative_error
from geoeq.symmetry.hooks import Call

__all__ = ["LayerError", "Pair"]


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
class Pair:
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

    def guilty(self, tolerance: float, *, alone: bool) -> tuple[str, ...]:
        """Input irreps that break the symmetry with all others zero, or without which it is kept."""
        found = []
        for (mul, ir), columns in zip(self.before.irreps, self.before.irreps.slices()):
            keep = torch.zeros(self.before.irreps.dim) if alone else torch.ones(self.before.irreps.dim)
            keep[columns] = 1.0 if alone else 0.0
            if (self.again(keep) > tolerance) == alone:
                found.append(f"{mul}x{ir}")
        return tuple(found)
