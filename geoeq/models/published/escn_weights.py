"""eSCN: the authors' hyperparameters and parameters in geoeq's form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from geoeq.errors import CheckpointError, unknown_name
from geoeq.fields import NUM_ELEMENTS
from geoeq.layers.edge_frames.so2 import order_sizes
from geoeq.models.heads.head import Head
from geoeq.models.heads.sampled_heads import SampledScalar, SampledVector
from geoeq.models.published.parameters import NamedParameters, check_hyperparameters

__all__ = ["reference_arguments", "reference_parameters"]

_NEEDED = {"cutoff", "lmax_list", "mmax_list", "num_layers", "sphere_channels", "hidden_channels", "edge_channels"}
_OPTIONAL = {
    "num_sphere_samples",
    "distance_function",
    "basis_width_scalar",
    "distance_resolution",
    "max_num_elements",
    "regress_forces",
    "resolution",
}
#: options of the neighbour search, the output and the memory, which change no number if edges are given.
_WITHOUT_EFFECT = {
    "num_atoms",
    "bond_feat_dim",
    "num_targets",
    "use_pbc",
    "use_pbc_single",
    "otf_graph",
    "max_neighbors",
    "enforce_max_neighbors_strictly",
    "use_grid",
    "show_timing_info",
    "activation_checkpoint",
}
_BASES = {"gaussian": "gaussian", "sigmoid": "sigmoid", "linearsigmoid": "linear_sigmoid", "silu": "silu"}
_DEFAULTS = {"num_sphere_samples": 128, "distance_function": "gaussian", "basis_width_scalar": 1.0}
_ENDS = {"source": "sender", "target": "receiver"}


def reference_arguments(hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of ``ESCN`` for the authors' hyperparameters.

    Raises:
        CheckpointError: a hyperparameter is unknown, missing or not supported.
    """
    check_hyperparameters("ESCN", hyperparameters, _NEEDED, _OPTIONAL | _WITHOUT_EFFECT)
    settings = {**_DEFAULTS, **hyperparameters}
    for name in ("lmax_list", "mmax_list"):
        if len(settings[name]) != 1:
            raise CheckpointError(
                f"ESCN.from_reference: {name} is {settings[name]}; only networks of one resolution are supported."
            )
    if settings["distance_function"] not in _BASES:
        unknown = unknown_name("distance_function", settings["distance_function"], _BASES)
        raise CheckpointError(f"ESCN.from_reference: {unknown}")
    count = settings.get("max_num_elements", 90)
    if count > NUM_ELEMENTS:
        raise CheckpointError(f"ESCN.from_reference: max_num_elements is {count}; there are at most {NUM_ELEMENTS}.")
    heads: list[Head] = [SampledScalar("energy", "sum", samples=settings["num_sphere_samples"])]
    if settings.get("regress_forces", True):
        heads.append(SampledVector("forces", samples=settings["num_sphere_samples"]))
    return {
        "heads": heads,
        "lmax": settings["lmax_list"][0],
        "mmax": settings["mmax_list"][0],
        "channels": settings["sphere_channels"],
        "hidden_channels": settings["hidden_channels"],
        "edge_channels": settings["edge_channels"],
        "layers": settings["num_layers"],
        "resolution": settings.get("resolution"),
        "basis": _BASES[settings["distance_function"]],
        "num_basis": int(settings["cutoff"] / settings.get("distance_resolution", 0.02)),
        "basis_spread": settings["basis_width_scalar"],
        "basis_cutoff": settings["cutoff"],
        "normalization": "integral",
        "first_residual": False,
        "detach_frames": True,
        "elements": [*range(1, count)],
    }


def reference_parameters(state_dict: Mapping[str, Tensor], arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the authors' parameters and buffers under our names, joining those that are a single parameter here.

    Args:
        state_dict: the authors' parameters and buffers.
        arguments: the result of ``reference_arguments``.

    Raises:
        CheckpointError: a parameter is missing, left over, or of another shape.
    """
    # The offsets of the Gaussians are constants, and of the basis that all layers share only the first copy is used.
    theirs = NamedParameters(
        state_dict, lambda key, _: key.endswith(".offset") or "edge_block.distance_expansion" in key
    )
    channels, rows = arguments["channels"], len(arguments["elements"]) + 1
    ours = {"embedding.scalars.element.weight": _table(theirs.take("sphere_embedding.weight", [rows, channels]))}
    if arguments["basis"] == "silu":  # on r and 1
        weight = theirs.take("distance_expansion.fc1.weight", [arguments["num_basis"], 2])
        bias = theirs.take("distance_expansion.fc1.bias", [arguments["num_basis"]])
        ours |= {"basis.linear.weight": weight[:, :1], "basis.linear.bias": weight[:, 1] + bias}
    for k in range(arguments["layers"]):
        layer = _layer(theirs, f"layer_blocks.{k}", arguments, rows)
        ours |= {f"layers.{k}.{name}": value for name, value in layer.items()}
    ours |= _heads(theirs, arguments)
    theirs.finish("ESCN")
    return ours


def _table(rows: Tensor) -> Tensor:
    table = rows.new_zeros(NUM_ELEMENTS, rows.shape[1])
    table[: len(rows)] = rows
    return table


def _layer(theirs: NamedParameters, name: str, arguments: Mapping[str, Any], rows: int) -> dict[str, Tensor]:
    channels, hidden, width = (arguments[key] for key in ("channels", "hidden_channels", "edge_channels"))
    edge, block = f"{name}.message_block.edge_block", f"{name}.message_block.so2_block"
    ours = {
        "first.weight": theirs.take(f"{name}.fc1_sphere.weight", [channels, 2 * channels]),
        "second.weight": theirs.take(f"{name}.fc2_sphere.weight", [channels, channels]),
        "last.weight": theirs.take(f"{name}.fc3_sphere.weight", [channels, channels]),
        "message.edge.attributes.weight": theirs.take(f"{edge}.fc1_dist.weight", [width, arguments["num_basis"]]),
        "message.edge.attributes.bias": theirs.take(f"{edge}.fc1_dist.bias", [width]),
        "message.edge.sender.weight": _table(theirs.take(f"{edge}.source_embedding.weight", [rows, width])),
        "message.edge.receiver.weight": _table(theirs.take(f"{edge}.target_embedding.weight", [rows, width])),
        "message.edge.last.weight": theirs.take(f"{edge}.fc1_edge_attr.weight", [width, width]),
        "message.edge.last.bias": theirs.take(f"{edge}.fc1_edge_attr.bias", [width]),
    }
    gates: dict[str, list[Tensor]] = {"weight": [], "bias": []}
    for m, size in enumerate(order_sizes(arguments["lmax"], arguments["mmax"])):
        rank, parts = (2, ("r", "i")) if m else (1, ("m0",))
        prefix = f"so2_conv.{m - 1}." if m else ""
        wide = size * channels
        last = []
        for part in parts:
            last += [theirs.take(f"{block}_{end}.{prefix}fc2_{part}.weight", [wide, hidden]) for end in _ENDS]
        ours[f"message.last.{m}.weight"] = torch.cat(last, dim=1)
        for end, mine in _ENDS.items():
            first = [theirs.take(f"{block}_{end}.{prefix}fc1_{part}.weight", [hidden, wide]) for part in parts]
            ours[f"message.{mine}.{m}.weight"] = torch.cat(first)
        for kind, gate_parts in gates.items():
            shape = [rank * hidden, width] if kind == "weight" else [rank * hidden]
            gate = f"{prefix}fc1_dist.{kind}" if m else f"fc1_dist0.{kind}"
            ends = [theirs.take(f"{block}_{end}.{gate}", shape).chunk(rank) for end in _ENDS]
            gate_parts += [end[part] for part in range(rank) for end in ends]  # real parts of both ends, imaginary ones
    return ours | {f"message.gates.{kind}": torch.cat(gate_parts) for kind, gate_parts in gates.items()}


def _heads(theirs: NamedParameters, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    channels, samples = arguments["channels"], arguments["heads"][0].samples
    points = theirs.take("sphere_points", [samples, 3]) / samples
    harmonics = theirs.take("sphharm_weights.0", [samples, (arguments["lmax"] + 1) ** 2])
    ours = {"heads.0.scale": harmonics.new_tensor(0.001), "heads.0.network.0.harmonics": harmonics}
    if len(arguments["heads"]) > 1:
        ours |= {"heads.1.network.0.harmonics": harmonics, "heads.1.network.0.weights": points}
    for k, block in enumerate(("energy_block", "force_block")[: len(arguments["heads"])]):
        name = f"heads.{k}.network.0"
        for number, part in enumerate(("first", "second"), start=1):
            ours[f"{name}.{part}.weight"] = theirs.take(f"{block}.fc{number}.weight", [channels, channels])
            ours[f"{name}.{part}.bias"] = theirs.take(f"{block}.fc{number}.bias", [channels])
        ours[f"{name}.last.weight"] = theirs.take(f"{block}.fc3.weight", [1, channels])
    return ours
