"""Record the calls of layers in a network with hooks, and compare them before and after a group element."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from e3nn import o3
from torch import Tensor, nn

from geoeq.geometry.groups import Element, Output, named_output, relative_error
from geoeq.graph import Graph
from geoeq.layers.inputs.embedding import EdgeEmbedding, IrrepsEmbedding, NodeEmbedding
from geoeq.layers.irreps.layout import from_coefficients, to_coefficients
from geoeq.models.heads.head import Head
from geoeq.symmetry.grid_error import stated_error, with_finer_grids

__all__ = ["Call", "LayerError", "Pair", "record_calls"]


@dataclass(frozen=True)
class Call:
    """One call of a layer.

    Attributes:
        name: name of the layer in its network.
        kind: class of the layer.
        x: input features; None if the layer takes structures.
        irreps: irreps of the input features.
        outputs: outputs by name.
        again: function that returns the outputs for other features and otherwise equal inputs.
        graph: graph passed to the layer, if any.
        own_error: error of rotations that the layer states itself.
    """

    name: str
    kind: str
    x: Tensor | None
    irreps: o3.Irreps
    outputs: dict[str, Output]
    again: Callable[[Tensor], dict[str, Output]] = field(repr=False)
    graph: Graph | None
    own_error: float


@contextlib.contextmanager
def record_calls(network: nn.Module) -> Iterator[list[Call]]:
    """Record the calls of layers, embeddings and heads within a ``with`` block, in the order in which they end.

    A layer is a module with irreps_in and irreps_out; a nested layer precedes the one that contains it.
    """
    calls: list[Call] = []
    twin = with_finer_grids(network)
    undo: list[Callable[[], None]] = []
    for name, module in network.named_modules():
        if not _is_layer(module) or module is network:
            continue
        finer = None if twin is None else twin.get_submodule(name)
        hook = module.register_forward_hook(_hook(name, calls, finer), with_kwargs=True)
        undo.append(hook.remove)
        if callable(getattr(module, "on_sphere", None)):
            _record_on_sphere(module, name, calls, finer)
            undo.append(lambda module=module: delattr(module, "on_sphere"))  # type: ignore[misc]
    try:
        yield calls
    finally:
        for restore in undo:
            restore()


def _is_layer(module: nn.Module) -> bool:
    has_irreps = all(isinstance(getattr(module, key, None), o3.Irreps) for key in ("irreps_in", "irreps_out"))
    return has_irreps or isinstance(module, Head | NodeEmbedding | IrrepsEmbedding | EdgeEmbedding)


def _hook(name: str, calls: list[Call], finer: nn.Module | None) -> Callable[..., None]:
    def record(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], value: Any) -> None:
        irreps: o3.Irreps = module.irreps if isinstance(module, Head) else getattr(module, "irreps_in", o3.Irreps())
        x = args[0] if args and isinstance(args[0], Tensor) and irreps.dim else None
        if (x is not None and x.shape[-1] != irreps.dim) or not isinstance(value, Tensor | dict):
            return

        def again(features: Tensor) -> dict[str, Output]:
            return _outputs(module, module.forward(features, *args[1:], **kwargs))

        graph = next((argument for argument in (*args, *kwargs.values()) if isinstance(argument, Graph)), None)
        outputs = _outputs(module, value)
        own = stated_error(
            module, lambda part: outputs if part is module else _outputs(part, part(*args, **kwargs)), finer
        )
        calls.append(Call(name, type(module).__name__, x, irreps, outputs, again, graph, own))

    return record


def _record_on_sphere(module: Any, name: str, calls: list[Call], finer: Any) -> None:
    """Record calls of layers to which networks pass features with the channels last."""
    original, irreps = module.on_sphere, module.irreps_in

    def on_sphere(x: Tensor, graph: Graph, *rest: Any) -> Tensor:
        value: Tensor = original(x, graph, *rest)

        def again(features: Tensor) -> dict[str, Output]:
            sphere = to_coefficients(features, module.lmax, module.channels)
            return _outputs(module, from_coefficients(original(sphere, graph, *rest), module.lmax))

        outputs, features = _outputs(module, from_coefficients(value, module.lmax)), from_coefficients(x, module.lmax)
        own = stated_error(
            module,
            lambda part: {"features": value if part is module else part.on_sphere(x, graph, *rest)},
            finer,
        )
        calls.append(Call(name, type(module).__name__, features, irreps, outputs, again, graph, own))
        return value

    module.on_sphere = on_sphere


def _outputs(module: nn.Module, value: Any) -> dict[str, Output]:
    if isinstance(module, Head):
        return {name: named_output(name, part) for name, part in value.items()}
    irreps = getattr(module, "irreps_out", getattr(module, "irreps", None))
    if not isinstance(irreps, o3.Irreps):  # an embedding of scalars
        irreps = o3.Irreps(f"{value.shape[-1]}x0e")
    return {"features": Output(value, "edge" if isinstance(module, EdgeEmbedding) else "node", irreps)}


@dataclass(frozen=True)
class LayerError:
    """Errors of one call of a layer.

    Attributes:
        name: name of the layer in its network.
        kind: class of the layer.
        input: error of its input features; None if it takes structures.
        output: error of its output.
        tolerance: largest error that passes.
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
        """Return an output after the group element; rows that do not belong to nodes keep their order."""
        rows = len(output.value) == len(self.element.order)
        level = "edge" if output.level == "node" and not rows else output.level
        return self.element.on_output(replace(output, level=level))

    def errors(self, tolerance: float) -> LayerError:
        """Return the errors of input and output."""
        input_error = None
        if self.before.x is not None and self.after.x is not None:
            input_error = self._error(self.after.x, Output(self.before.x, "node", self.before.irreps))
        output_error = self._largest(self.before.outputs, self.after.outputs)
        return LayerError(self.before.name, self.before.kind, input_error, output_error, tolerance)

    def _error(self, value: Tensor, before: Output) -> float:
        of_edges = before.level != "graph" and len(before.value) != len(self.element.order)
        if self.permuted and of_edges:
            return 0.0  # edges are in another order and cannot be compared
        return relative_error(value, self.moved(before))

    def _largest(self, before: dict[str, Output], after: dict[str, Output]) -> float:
        return max((self._error(after[name].value, output) for name, output in before.items()), default=0.0)

    def again(self, keep: Tensor) -> float:
        """Return the error of the output if only some columns of the input are kept."""
        if self.before.x is None:
            return 0.0
        x = self.before.x * keep.to(self.before.x)
        moved = self.moved(Output(x, "node", self.before.irreps))
        return self._largest(self.before.again(x), self.after.again(moved))

    def wrong_outputs(self, tolerance: float) -> tuple[str, ...]:
        """Return the names or irreps of wrong outputs."""
        wrong = []
        for name, output in self.before.outputs.items():
            if name != "features" or output.irreps is None:
                wrong += [name] if self._error(self.after.outputs[name].value, output) > tolerance else []
                continue
            expected, value = self.moved(output), self.after.outputs[name].value
            for (mul, ir), columns in zip(output.irreps, output.irreps.slices()):
                if relative_error(value[..., columns], expected[..., columns]) > tolerance:
                    wrong.append(f"{mul}x{ir}")
        return tuple(wrong)

    def guilty(self, tolerance: float, *, alone: bool) -> tuple[str, ...]:
        """Return the input irreps that break the symmetry by themselves, or without which it is respected."""
        guilty = []
        for (mul, ir), columns in zip(self.before.irreps, self.before.irreps.slices()):
            keep = torch.zeros(self.before.irreps.dim) if alone else torch.ones(self.before.irreps.dim)
            keep[columns] = 1.0 if alone else 0.0
            if (self.again(keep) > tolerance) == alone:
                guilty.append(f"{mul}x{ir}")
        return tuple(guilty)
