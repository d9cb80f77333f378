"""The authors' names for PONITA: their hyperparameters and parameters as ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from geoeq.errors import CheckpointError
from geoeq.models.published.parameters import NamedParameters, check_hyperparameters

__all__ = ["reference_arguments", "reference_parameters"]

_NEEDED = {"input_dim", "hidden_dim", "output_dim", "num_layers", "radius"}
_DEFAULTS: dict[str, Any] = {
    "output_dim_vec": 0,
    "num_ori": 20,
    "degree": 3,
    "widening_factor": 4,
    "layer_scale": None,
    "multiple_readouts": True,
    "task_level": "node",
    "lift_graph": True,
}
#: what else could be asked of the published network is not known to us.
_SUPPORTED = {"task_level": "node", "lift_graph": True}


def reference_arguments(state_dict: Mapping[str, Tensor], hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ``PONITA`` for the authors' hyperparameters.

    Raises:
        CheckpointError: one is unknown or missing, or not supported.
    """
    check_hyperparameters("PONITA", hyperparameters, _NEEDED, {*_DEFAULTS, "basis_dim"})
    given = {**_DEFAULTS, **hyperparameters}
    for name, value in _SUPPORTED.items():
        if given[name] != value:
            raise CheckpointError(f"PONITA.from_reference: {name} is {given[name]!r}; known is {value!r}.")
    if given["radius"] is None:
        raise CheckpointError("PONITA.from_reference: radius is None; networks with a radius are known.")
    scaled = "interaction_layers.0.layer_scale" in state_dict
    return {
        "heads": [],
        "channels": given["hidden_dim"],
        "layers": given["num_layers"],
        "num_orientations": given["num_ori"],
        "invariants": "perpendicular",
        "basis_width": given.get("basis_dim") or given["hidden_dim"],
        "degree": given["degree"],
        "widening": given["widening_factor"],
        "layer_scale": float(given["layer_scale"] or 0) if scaled else None,
        "scalars": given["output_dim"],
        "vectors": given["output_dim_vec"],
        "every_layer": given["multiple_readouts"],
        "cutoff": float(given["radius"]),
        "node_inputs": ["features"],
        "features_irreps": f"{given['input_dim']}x0e",
    }


def reference_parameters(state_dict: Mapping[str, Tensor], arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """The authors' parameters and buffers under our names.

    Args:
        state_dict: theirs.
        arguments: those of ``reference_arguments``.

    Raises:
        CheckpointError: a parameter is missing, left over, or of another shape, or the window has another power.
    """
    _check_window(state_dict, arguments["cutoff"])
    # Whether kernels have been rescaled by a first batch is in their weights.
    theirs = NamedParameters(state_dict, lambda key, _: key.endswith(".callibrated") or key.startswith("windowing_fn."))
    channels, width, points = arguments["channels"], arguments["basis_width"], arguments["num_orientations"]
    wide, inputs = arguments["widening"] * channels, int(arguments["features_irreps"].partition("x")[0])
    embedding = theirs.take("x_embedder.weight", [channels, inputs])
    ours = {
        "embedding.scalars.linear.weight": embedding,
        "embedding.scalars.linear.bias": embedding.new_zeros(channels),
    }
    networks = {"basis_fn": ("kernels.edge.network", 2 if points else 1)}
    if points:
        networks["fiber_basis_fn"] = ("kernels.fibre.network", 1)
    for name, (mine, invariants) in networks.items():
        features = sum(invariants**power for power in range(1, arguments["degree"] + 1))
        for number, shape in ((1, [channels, features]), (3, [width, channels])):
            ours[f"{mine}.{number - 1}.weight"] = theirs.take(f"{name}.{number}.weight", shape)
            ours[f"{mine}.{number - 1}.bias"] = theirs.take(f"{name}.{number}.bias", shape[:1])
    names: dict[str, tuple[str, list[int]]] = {
        "conv.kernel.weight": ("kernel.weight", [channels, width]),
        "conv.bias": ("bias", [channels]),
        "norm.weight": ("norm.weight", [channels]),
        "norm.bias": ("norm.bias", [channels]),
        "linear_1.weight": ("first.weight", [wide, channels]),
        "linear_1.bias": ("first.bias", [wide]),
        "linear_2.weight": ("second.weight", [channels, wide]),
        "linear_2.bias": ("second.bias", [channels]),
    }
    if points:
        names["conv.fiber_kernel.weight"] = ("fibre_kernel.weight", [channels, width])
    if arguments["layer_scale"] is not None:
        names["layer_scale"] = ("layer_scale", [channels])
    for k in range(arguments["layers"]):
        for name, (mine, shape) in names.items():
            ours[f"layers.{k}.{mine}"] = theirs.take(f"interaction_layers.{k}.{name}", shape)
        if arguments["every_layer"] or k == arguments["layers"] - 1:
            out = arguments["scalars"] + arguments["vectors"]
            ours[f"readouts.{k}.weight"] = theirs.take(f"read_out_layers.{k}.weight", [out, channels])
            ours[f"readouts.{k}.bias"] = theirs.take(f"read_out_layers.{k}.bias", [out])
    for name in [name for name in theirs.left if name.rpartition(".")[2] == "ori_grid"]:
        ours["points"] = theirs.take(name, [points, 3])
    theirs.finish("PONITA")
    return ours


def _check_window(state_dict: Mapping[str, Tensor], cutoff: float) -> None:
    for name, value in (("p", 6.0), ("r_max", cutoff)):
        found = state_dict.get(f"windowing_fn.{name}", torch.tensor(value))
        if float(found) != value:
            raise CheckpointError(f"PONITA.from_reference: windowing_fn.{name} is {float(found)}, and not {value}.")
