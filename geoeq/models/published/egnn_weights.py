"""EGNN: the authors' hyperparameters and parameter names in geoeq's form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from geoeq.models.heads import NodeFeatures, Positions
from geoeq.models.published.parameters import check_hyperparameters

__all__ = ["reference_arguments", "reference_names"]

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
    """Return the arguments of ``EGNN`` for the authors' hyperparameters.

    Args:
        molecules: True for the network for graphs and molecules, False for the one of the N-body experiment.
        hyperparameters: hyperparameters under the authors' names.

    Raises:
        CheckpointError: a hyperparameter is unknown or missing.
    """
    required = _MOLECULES if molecules else _DYNAMICS
    optional = {"attention", "normalize", "tanh", "residual"} if molecules else {"recurrent", "norm_diff", "tanh"}
    check_hyperparameters("EGNN", hyperparameters, required, optional)
    settings = hyperparameters
    arguments: dict[str, Any] = {
        "width": settings["hidden_nf"],
        "layers": settings["n_layers"],
        "node_inputs": ("features",),
        "features_width": settings["in_node_nf"],
        "edge_inputs": ("edge_attr",) if settings["in_edge_nf"] else (),
        "edge_attr_width": settings["in_edge_nf"],
        "tanh": settings.get("tanh", False),
    }
    if molecules:
        return arguments | {
            "heads": [NodeFeatures(settings["out_node_nf"]), Positions()],
            "attention": settings.get("attention", False),
            "normalize": "length" if settings.get("normalize", False) else "none",
            "residual": settings.get("residual", True),
            "detach_norm": True,
        }
    return arguments | {
        "heads": [Positions()],
        "velocity": True,
        "normalize": "length_plus_one" if settings.get("norm_diff", False) else "none",
        "residual": settings.get("recurrent", True),
        "clamp": 100.0,
    }


def reference_names(molecules: bool, layers: int) -> dict[str, str]:
    """Return a table from the authors' module names to ours."""
    names = {f"gcl_{k}.{theirs}": f"layers.{k}.{ours}" for k in range(layers) for theirs, ours in _LAYER.items()}
    if molecules:
        return names | {"embedding_in": "embedding.linear", "embedding_out": "heads.0.linear"}
    return names | {"embedding": "embedding.linear"}
