"""The authors' names for EGNN: their hyperparameters and parameters as ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from geoeq.errors import CheckpointError, unknown_name
from geoeq.models.heads import NodeFeatures, Positions

__all__ = ["load_parameters", "reference_arguments", "reference_names"]

_LAYER = {
    "edge_mlp.0": "edge",
    "edge_mlp.2": "message.1",
    "att_mlp.0": "gate.0",
    "coord_mlp.0": "pull.0",
    "coord_mlp.2": "pull.2",
    "coord_mlp_vel.0": "drift.0",
    "coord_mlp_vel.2": "drift.2",
    "node_mlp.0": "update.0",
    "node_mlp.2": "update.2",
}
_MOLECULES = {"in_node_nf", "in_edge_nf", "hidden_nf", "out_node_nf", "n_layers"}
_DYNAMICS = {"in_node_nf", "in_edge_nf", "hidden_nf", "n_layers"}


def reference_arguments(molecules: bool, hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ``EGNN`` for the authors' hyperparameters.

    Args:
        molecules: True for the network for graphs and molecules, False for that of the N-body experiment.
        hyperparameters: under the authors' names.

    Raises:
        CheckpointError: one is unknown, or missing.
    """
    needed = _MOLECULES if molecules else _DYNAMICS
    optional = {"attention", "normalize", "tanh", "residual"} if molecules else {"recurrent", "norm_diff", "tanh"}
    for name in hyperparameters:
        if name not in needed | optional:
            raise CheckpointError(f"EGNN.from_reference: {unknown_name('hyperparameter', name, needed | optional)}")
    for name in sorted(needed):
        if name not in hyperparameters:
            raise CheckpointError(f"EGNN.from_reference needs the hyperparameter '{name}'.")
    given = hyperparameters
    arguments: dict[str, Any] = {
        "width": given["hidden_nf"],
        "layers": given["n_layers"],
        "node_inputs": ("features",),
        "features_width": given["in_node_nf"],
        "edge_inputs": ("edge_attr",) if given["in_edge_nf"] else (),
        "edge_attr_width": given["in_edge_nf"],
        "tanh": given.get("tanh", False),
    }
    if molecules:
        return arguments | {
            "heads": [NodeFeatures(given["out_node_nf"]), Positions()],
            "attention": given.get("attention", False),
            "normalize": "length" if given.get("normalize", False) else "none",
            "residual": given.get("residual", True),
            "detach_norm": True,
        }
    return arguments | {
        "heads": [Positions()],
        "velocity": True,
        "normalize": "length_plus_one" if given.get("norm_diff", False) else "none",
        "residual": given.get("recurrent", True),
        "clamp": 100.0,
    }


def reference_names(molecules: bool, layers: int) -> dict[str, str]:
    """The authors' module names and ours."""
    names = {f"gcl_{k}.{theirs}": f"layers.{k}.{ours}" for k in range(layers) for theirs, ours in _LAYER.items()}
    if molecules:
        return names | {"embedding_in": "embedding.linear", "embedding_out": "heads.0.linear"}
    return names | {"embedding": "embedding.linear"}


def load_parameters(model: nn.Module, state_dict: Mapping[str, Tensor], names: Mapping[str, str]) -> None:
    """Fill ``model`` with parameters under other names.

    Args:
        model: all of its parameters are filled; buffers keep their values.
        state_dict: parameters under the authors' names.
        names: the authors' module names and ours.

    Raises:
        CheckpointError: a parameter is missing, left over, or of another shape.
    """
    ours = dict(model.named_parameters())
    for key, value in state_dict.items():
        module, _, kind = key.rpartition(".")
        target = ours.pop(f"{names.get(module, '?')}.{kind}", None)
        if target is None:
            raise CheckpointError(f"The parameter '{key}' has no place in this {type(model).__name__}.")
        if target.shape != value.shape:
            raise CheckpointError(f"'{key}' has shape {list(value.shape)}; this model needs {list(target.shape)}.")
        target.data = value.detach().clone()
    if ours:
        theirs = {our: their for their, our in names.items()}
        missing = [f"{theirs.get(key.rpartition('.')[0], '?')}.{key.rpartition('.')[2]}" for key in ours]
        raise CheckpointError(f"The state dict lacks: {', '.join(missing)}.")
