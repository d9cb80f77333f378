"""What goes into the layers of a network and what comes out, call by call."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from e3nn import o3
from torch import Tensor, nn

from geoeq.geometry.groups import Output, named_output
from geoeq.graph import Graph
from geoeq.layers.inputs.embedding import EdgeEmbedding, IrrepsEmbedding, NodeEmbedding
from geoeq.layers.irreps.layout import from_coefficients, to_coefficients
from geoeq.models.heads.head import Head

__all__ = ["Call", "record_calls"]


@dataclass(frozen=True)
class Call:
    """One call of a layer.

    Attributes:
        name: of the layer in its network.
        kind: its class.
        x: its input features; None where it takes structures.
        irreps: of these.
        outputs: by name.
        again: gives the outputs for other features and everything else as it was.
        graph: that it was given, if one was.
        own_error: the error of rotations that it states itself.
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
    """Within a ``with`` block, the list of the calls of layers, embeddings and heads, in the order in which they end.

    A layer is a module with irreps_in and irreps_out; one inside another comes before it.
    """
    calls: list[Call] = []
    undo: list[Callable[[], None]] = []
    for name, module in network.named_modules():
        if not _is_layer(module) or module is network:
            continue
        hook = module.register_forward_hook(_hook(name, calls), with_kwargs=True)
        undo.append(hook.remove)
        if callable(getattr(module, "on_sphere", None)):
            _watch_sphere(module, name, calls)
            undo.append(lambda module=module: delattr(module, "on_sphere"))  # type: ignore[misc]
    try:
        yield calls
    finally:
        for back in undo:
            back()


def _is_layer(module: nn.Module) -> bool:
    has_irreps = all(isinstance(getattr(module, key, None), o3.Irreps) for key in ("irreps_in", "irreps_out"))
    return has_irreps or isinstance(module, Head | NodeEmbedding | IrrepsEmbedding | EdgeEmbedding)


def _hook(name: str, calls: list[Call]) -> Callable[..., None]:
    def record(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], value: Any) -> None:
        irreps: o3.Irreps = module.irreps if isinstance(module, Head) else getattr(module, "irreps_in", o3.Irreps())
        x = args[0] if args and isinstance(args[0], Tensor) and irreps.dim else None
        if (x is not None and x.shape[-1] != irreps.dim) or not isinstance(value, Tensor | dict):
            return

        def again(features: Tensor) -> dict[str, Output]:
            return _outputs(module, module.forward(features, *args[1:], **kwargs))

        given = [argument for argument in (*args, *kwargs.values()) if isinstance(argument, Graph)]
        own = float(getattr(module, "equivariance_error", 0.0))
        outputs = _outputs(module, value)
        graph = given[0] if given else None
        calls.append(Call(name, type(module).__name__, x, irreps, outputs, again, graph, own))

    return record


def _watch_sphere(module: Any, name: str, calls: list[Call]) -> None:
    """Calls of layers that networks give their features channels last."""
    original, irreps = module.on_sphere, module.irreps_in

    def on_sphere(x: Tensor, graph: Graph, *rest: Any) -> Tensor:
        value: Tensor = original(x, graph, *rest)

        def again(features: Tensor) -> dict[str, Output]:
            sphere = to_coefficients(features, module.lmax, module.channels)
            return _outputs(module, from_coefficients(original(sphere, graph, *rest), module.lmax))

        outputs, own = _outputs(module, from_coefficients(value, module.lmax)), float(module.equivariance_error)
        features = from_coefficients(x, module.lmax)
        calls.append(Call(name, type(module).__name__, features, irreps, outputs, again, graph, own))
        return value

    module.on_sphere = on_sphere


def _outputs(module: nn.Module, value: Any) -> dict[str, Output]:
    if isinstance(module, Head):
        return {name: named_output(name, part) for name, part in value.items()}
    irreps = getattr(module, "irreps_out", getattr(module, "irreps", None))
    if not isinstance(irreps, o3.Irreps):  # of an embedding of scalars
        irreps = o3.Irreps(f"{value.shape[-1]}x0e")
    return {"features": Output(value, "edge" if isinstance(module, EdgeEmbedding) else "node", irreps)}
