"""PONITA: the authors' hyperparameters and parameters in geoeq's form."""

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
#: the only supported values of these options.
_SUPPORTED = {"task_level": "node", "lift_graph": True}


def reference_arguments(state_dict: Mapping[str, Tensor], hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of ``PONITA`` for the authors' hyperparameters.

    Raises:
        CheckpointError: a hyperparameter is unknown, missing or not supported.
    """
    check_hyperparameters("PONITA", hyperparameters, _NEEDED, {*_DEFAULTS, "basis_dim"})
    settings = {**_DEFAULTS, **hyperparameters}
    for name, value in _SUPPORTED.items():
        if settings[name] != value:
            raise CheckpointError(f"PONITA.from_reference: {name} is {settings[name]!r}; only {value!r} is supported.")
    if settings["radius"] is None:
        raise CheckpointError("PONITA.from_reference: radius is None; only networks with a radius are supported.")
    scaled = "interaction_layers.0.layer_scale" in state_dict
    return {
        "heads": [],
        "channels": settings["hidden_dim"],
        "layers": settings["num_layers"],
        "num_orientations": settings["num_ori"],
        "invariants": "perpendicular",
        "basis_width": settings.get("basis_dim") or settings["hidden_dim"],
        "degree": settings["degree"],
        "widening": settings["widening_factor"],
        "layer_scale": float(settings["layer_scale"] or 0) if scaled else None,
        "scalars": settings["output_dim"],
        "vectors": settings["output_dim_vec"],
        "every_layer": settings["multiple_readouts"],
        "cutoff": float(settings["radius"]),
        "node_inputs": ["features"],
        "features_irreps": f"{settings['input_dim']}x0e",
    }


def reference_parameters(state_dict: Mapping[str, Tensor], arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the authors' parameters and buffers under our names.

    Args:
        state_dict: the authors' parameters and buffers.
        arguments: the result of ``reference_arguments``.

    Raises:
        CheckpointError: a parameter is missing, left over, or of another shape, or the window has another power.
    """
    _check_window(state_dict, arguments["cutoff"])
    # If kernels were rescaled by a first batch, their weights contain it.
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
        theirs = float(state_dict.get(f"windowing_fn.{name}", torch.tensor(value)))
        if theirs != value:
            raise CheckpointError(f"PONITA.from_reference: windowing_fn.{name} is {theirs}, not {value}.")
