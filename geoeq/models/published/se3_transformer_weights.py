"""SE(3)-Transformer: the hyperparameters and parameters of NVIDIA's implementation in geoeq's form."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from e3nn import o3
from torch import Tensor, nn

from geoeq.errors import CheckpointError
from geoeq.layers.se3_transformer.se3_attention import SE3Attention
from geoeq.layers.se3_transformer.se3_block import SE3Block
from geoeq.layers.se3_transformer.se3_messages import RadialSharing, SE3Messages
from geoeq.layers.se3_transformer.se3_norm import SE3Norm
from geoeq.models.published.parameters import NamedParameters, check_hyperparameters

__all__ = ["fill", "reference_arguments"]

_NEEDED = ("num_layers", "num_channels", "num_degrees", "num_heads", "channels_div", "fiber_in", "fiber_out")
_OPTIONAL = ("edge_channels", "norm", "use_layer_norm", "tensor_cores", "low_memory", "pooling", "return_type")


def _irreps(fiber: Mapping[str, int]) -> o3.Irreps:
    entries = sorted((int(degree), channels) for degree, channels in fiber.items())
    return o3.Irreps([(channels, (degree, (-1) ** degree)) for degree, channels in entries])


def reference_arguments(state_dict: Mapping[str, Tensor], hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of ``SE3Transformer`` for the authors' hyperparameters.

    Raises:
        CheckpointError: a hyperparameter is unknown, missing or not supported.
    """
    settings = dict(hyperparameters)
    check_hyperparameters("SE3Transformer", settings, _NEEDED, _OPTIONAL)
    for name in ("pooling", "return_type"):
        if settings.get(name) is not None:
            raise CheckpointError(
                f"SE3Transformer.from_reference gives node features: {name}={settings[name]!r} is not supported."
            )
    edge_channels = settings.get("edge_channels", 0)
    if not isinstance(edge_channels, int):
        raise CheckpointError(
            "SE3Transformer.from_reference takes edge features of degree 0: edge_channels is a number."
        )
    layers, norm = settings["num_layers"], settings.get("norm", True)
    step = 2 if norm else 1
    convolutions = [f"graph_modules.{step * n}.to_key_value" for n in range(layers)] + [
        f"graph_modules.{step * layers}"
    ]
    modes = [_sharing(state_dict, name) for name in convolutions]
    first = next(value for key, value in state_dict.items() if key.endswith("radial_func.net.0.weight"))
    return {
        "heads": [],
        "width": settings["num_channels"],
        "layers": layers,
        "lmax": settings["num_degrees"] - 1,
        "attention_heads": settings["num_heads"],
        "channels_div": settings["channels_div"],
        "irreps_out": str(_irreps(settings["fiber_out"])),
        "norm": "norm" if norm else "none",
        "node_inputs": ("features",),
        "features_irreps": str(_irreps(settings["fiber_in"])),
        "embed": False,
        "edge_inputs": ("edge_attr",) if edge_channels else (),
        "edge_attr_width": edge_channels,
        "distance": True,
        "hidden": first.shape[0],
        "sharing": modes,
        "radial_norm": settings.get("use_layer_norm", True),
        "activation": "relu",
        "self_per_edge": True,
    }


def _sharing(state_dict: Mapping[str, Tensor], convolution: str) -> RadialSharing:
    """Return how a convolution was fused, from the names of its parameters."""
    kinds: dict[str, RadialSharing] = {"conv.radial_func.": "all", "conv_out.": "output", "conv_in.": "input"}
    kinds["conv."] = "none"
    for kind, sharing in kinds.items():
        if any(key.startswith(f"{convolution}.{kind}") for key in state_dict):
            return sharing
    raise CheckpointError(f"The state dict lacks the convolution {convolution}, which num_layers and norm imply.")


class _Entry(NamedTuple):
    """A parameter of theirs, and our parameters that it fills."""

    theirs: str
    shape: tuple[int, ...]
    ours: list[tuple[Tensor, Any]]  # a parameter, and the function from their value to ours


def _same(value: Tensor) -> Tensor:
    return value


def _chunk(value: Tensor, n: int, count: int) -> Tensor:
    return value.chunk(count)[n]


def _plain(theirs: str, ours: Tensor) -> _Entry:
    return _Entry(theirs, tuple(ours.shape), [(ours, _same)])


def _convolution(theirs: str, messages: SE3Messages, sharing: RadialSharing) -> Iterator[_Entry]:
    for plan, module, weight in zip(messages.plans, messages.radial, messages.weights, strict=True):
        radial = cast(nn.Sequential, module)
        degree_in, degree_out = plan.inputs[0][0], plan.outputs[0][0]
        names = {"all": "conv", "output": f"conv_out.{degree_out}", "input": f"conv_in.{degree_in}"}
        net = f"{theirs}.{names.get(sharing, f'conv.{degree_in},{degree_out}')}.radial_func.net"
        for key, value in radial.named_parameters():
            yield _plain(f"{net}.{key}", value)
        channels_in, channels_out = plan.inputs[0][1], plan.outputs[0][1]
        paths = [pair.paths for pair in plan.pairs]
        # The pair (0, 0) by itself has no factor Y_00 in the published code.
        scale = math.sqrt(4 * math.pi) if sharing == "none" and degree_in == degree_out == 0 else 1.0

        make = partial(_ordered, shape=(channels_out, channels_in, sum(paths)), paths=paths, scale=scale)
        shape = (channels_out * channels_in * sum(paths), plan.hidden)
        yield _Entry(f"{net}.{len(radial)}.weight", shape, [(weight, make)])


def _ordered(value: Tensor, shape: tuple[int, ...], paths: list[int], scale: float) -> Tensor:
    """Reorder [(o, i, f), H] to a block [i, H, f, o] of each pair."""
    parts = (scale * value).view(*shape, -1).split(paths, dim=2)
    return torch.cat([part.permute(1, 3, 2, 0).flatten() for part in parts])


def _norm(theirs: str, norm: SE3Norm) -> Iterator[_Entry]:
    widths = [channels for _, channels in norm.degrees]
    for kind in ("weight", "bias"):
        ours = [getattr(layer, kind) for layer in norm.norms]
        if len(set(widths)) == 1:
            parts = [(parameter, partial(_chunk, n=n, count=len(widths))) for n, parameter in enumerate(ours)]
            yield _Entry(f"{theirs}.group_norm.{kind}", (sum(widths),), parts)
        else:
            for (degree, _), parameter in zip(norm.degrees, ours, strict=True):
                yield _plain(f"{theirs}.layer_norms.{degree}.{kind}", parameter)


def _entries(block: SE3Block, state_dict: Mapping[str, Tensor]) -> Iterator[_Entry]:
    step = 2 if block.norms else 1
    for n, layer in enumerate(cast(list[SE3Attention], list(block.layers))):
        name = f"graph_modules.{step * n}"
        yield from _convolution(f"{name}.to_key_value", layer.messages, _sharing(state_dict, f"{name}.to_key_value"))
        for degree, value in layer.query.items():
            yield _plain(f"{name}.to_query.weights.{degree}", value)
        for degree, value in layer.project.items():
            yield _plain(f"{name}.project.weights.{degree}", value)
        if block.norms:
            yield from _norm(f"graph_modules.{step * n + 1}", cast(SE3Norm, block.norms[n]))
    name = f"graph_modules.{step * len(block.layers)}"
    yield from _convolution(name, block.last.messages, _sharing(state_dict, name))
    for degree, value in block.last.own.items():
        yield _plain(f"{name}.to_kernel_self.{degree}", value)


def fill(block: SE3Block, state_dict: Mapping[str, Tensor]) -> None:
    """Fill ``block`` with the authors' parameters.

    Raises:
        CheckpointError: a parameter is missing, left over, or of another shape.
    """
    theirs = NamedParameters(state_dict, lambda key, value: False)
    for entry in _entries(block, state_dict):
        value = theirs.take(entry.theirs, entry.shape)
        for parameter, make in entry.ours:
            parameter.data = make(value).clone()
    theirs.finish("SE3Transformer")
