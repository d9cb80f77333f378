"""The authors' names for EGNN: their hyperparameters and parameters as ours."""

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
    """The arguments of ``EGNN`` for the authors' hyperparameters.

    Args:
        molecules: True for the network for graphs and molecules, False for that of the N-body experiment.
        hyperparameters: under the authors' names.

    Raises:
        CheckpointError: one is unknown, or missing.
    """
    needed = _MOLECULES if molecules else _DYNAMICS
    optional = {"attention", "normalize", "tanh", "residual"} if molecules else {"recurrent", "norm_diff", "tanh"}
    check_hyperparameters("EGNN", hyperparameters, needed, optional)
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
