"""EquiformerV2: the authors' hyperparameters and parameters in geoeq's form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from geoeq.errors import CheckpointError
from geoeq.fields import NUM_ELEMENTS
from geoeq.models.networks.equiformer_v2_heads import AttentionVector, SphereScalar
from geoeq.models.published.parameters import check_hyperparameters, load_parameters

__all__ = ["AVERAGE_NODES", "load_reference", "reference_arguments"]

#: Mean number of atoms in the IS2RE data set; published energies are divided by it.
AVERAGE_NODES = 77.81317

_NUM_BASIS = 600  # the published code ignores num_distance_basis

_NEEDED = {
    "max_radius",
    "max_num_elements",
    "num_layers",
    "sphere_channels",
    "attn_hidden_channels",
    "num_heads",
    "attn_alpha_channels",
    "attn_value_channels",
    "ffn_hidden_channels",
    "lmax_list",
    "mmax_list",
    "edge_channels",
}
#: The published defaults.
_DEFAULTS: dict[str, Any] = {
    "regress_forces": True,
    "norm_type": "rms_norm_sh",
    "grid_resolution": None,
    "use_atom_edge_embedding": True,
    "share_atom_edge_embedding": False,
    "use_m_share_rad": False,
    "distance_function": "gaussian",
    "use_s2_act_attn": False,
    "use_attn_renorm": True,
    "use_gate_act": False,
    "use_grid_mlp": False,
    "use_sep_s2_act": True,
    "alpha_drop": 0.1,
    "drop_path_rate": 0.05,
    "proj_drop": 0.0,
}
_WITHOUT_EFFECT = {
    "num_atoms",
    "bond_feat_dim",
    "num_targets",
    "use_pbc",
    "otf_graph",
    "max_neighbors",
    "num_sphere_samples",
    "num_distance_basis",
    "attn_activation",
    "ffn_activation",
    "weight_init",
}


def _single(settings: Mapping[str, Any], name: str) -> int:
    values = settings[name]
    if len(values) != 1:
        raise CheckpointError(f"EquiformerV2.from_reference: {name} is {values}; one resolution is supported.")
    return int(values[0])


def _atom_edge_embedding(settings: Mapping[str, Any]) -> str:
    if not settings["use_atom_edge_embedding"]:
        return "none"
    return "shared" if settings["share_atom_edge_embedding"] else "separate"


def reference_arguments(hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of ``EquiformerV2`` for the authors' hyperparameters.

    Raises:
        CheckpointError: a hyperparameter is unknown, missing, or has an unsupported value.
    """
    check_hyperparameters("EquiformerV2", hyperparameters, _NEEDED, {*_DEFAULTS, *_WITHOUT_EFFECT})
    settings = _DEFAULTS | dict(hyperparameters)
    for name, supported in (("use_m_share_rad", False), ("distance_function", "gaussian"), ("proj_drop", 0.0)):
        if settings[name] != supported:
            raise CheckpointError(
                f"EquiformerV2.from_reference: {name} is {settings[name]!r}; only {supported!r} is supported."
            )
    if settings["share_atom_edge_embedding"] and not settings["use_atom_edge_embedding"]:
        raise CheckpointError("EquiformerV2.from_reference: share_atom_edge_embedding needs use_atom_edge_embedding.")
    plain = "separable_s2" if settings["use_sep_s2_act"] else "s2"
    activation = "gate" if settings["use_gate_act"] else plain
    grid_mlp = "separable_grid_mlp" if settings["use_sep_s2_act"] else "grid_mlp"
    shared: dict[str, Any] = {
        "mmax": _single(settings, "mmax_list"),
        "hidden_channels": settings["attn_hidden_channels"],
        "alpha_channels": settings["attn_alpha_channels"],
        "value_channels": settings["attn_value_channels"],
        "activation": activation,
        "resolution": settings["grid_resolution"],
        "renormalize": settings["use_attn_renorm"],
        "scores_from_values": settings["use_s2_act_attn"],
        "edge_channels": settings["edge_channels"],
    }
    network: dict[str, Any] = {
        "feed_forward": grid_mlp if settings["use_grid_mlp"] else activation,
        "feed_forward_channels": settings["ffn_hidden_channels"],
    }
    ends = _atom_edge_embedding(settings)
    heads: list[Any] = [SphereScalar("energy", resolution=settings["grid_resolution"], **network)]
    if settings["regress_forces"]:
        edge_width = _NUM_BASIS + (2 * settings["edge_channels"] if ends == "shared" else 0)
        elements = ends == "separate"
        heads.append(
            AttentionVector("forces", heads=settings["num_heads"], edge_width=edge_width, elements=elements, **shared)
        )
    return (
        shared
        | network
        | {
            "heads": heads,
            "lmax": _single(settings, "lmax_list"),
            "layers": settings["num_layers"],
            "channels": settings["sphere_channels"],
            "attention_heads": settings["num_heads"],
            "norm": settings["norm_type"],
            "num_basis": _NUM_BASIS,
            "atom_edge_embedding": ends,
            "alpha_dropout": settings["alpha_drop"],
            "drop_path": settings["drop_path_rate"],
            "basis_cutoff": float(settings["max_radius"]),
            "detach_frames": True,
            "elements": range(1, settings["max_num_elements"]),
        }
    )


_BUFFERS = (
    "SO3_grid.",
    "SO3_rotation.",
    "balance_degree_weight",
    "distance_expansion.",
    "expand_index",
    "mappingReduced.",
)
_NETWORK = {
    "net.0": "first",
    "net.0.sender": "first_sender",
    "net.0.receiver": "first_receiver",
    "net.1": "rest.0",
    "net.3": "rest.2",
    "net.4": "rest.3",
    "net.6": "last",
}
_ENDS = {"source_embedding": "sender", "target_embedding": "receiver"}
_FEED_FORWARD = {
    "so3_linear_1": "first",
    "so3_linear_2": "last",
    "gating_linear": "scalars",
    "scalar_mlp.0": "scalars",
    "grid_mlp.0": "activation.network.0",
    "grid_mlp.2": "activation.network.2",
    "grid_mlp.4": "activation.network.4",
}


def _attention_names(mmax: int) -> dict[str, str]:
    names = {f"so2_conv_1.rad_func.{theirs}": f"network.{ours}" for theirs, ours in _NETWORK.items()}
    names |= {theirs: f"network.ends.{ours}" for theirs, ours in _ENDS.items()}
    names |= {"so2_conv_1.fc_m0": "first.scalar", "so2_conv_2.fc_m0": "second.scalar"}
    for m in range(mmax):
        names |= {f"so2_conv_{k}.so2_m_conv.{m}.fc": f"{ours}.orders.{m}" for k, ours in ((1, "first"), (2, "second"))}
    return names | {"alpha_norm": "norm", "proj": "project"}


def _names(layers: int, mmax: int) -> dict[str, str]:
    """Return a table from the authors' module names to ours."""
    names = {"sphere_embedding": "embedding.scalars.element", "norm": "norm"}
    names |= {theirs: f"ends.{ours}" for theirs, ours in _ENDS.items()}
    names |= {f"edge_degree_embedding.rad_func.{t}": f"edge_degree.network.{o}" for t, o in _NETWORK.items()}
    names |= {f"edge_degree_embedding.{t}": f"edge_degree.network.ends.{o}" for t, o in _ENDS.items()}
    attention = {"": ""} | _attention_names(mmax)
    for k in range(layers):
        names |= {f"blocks.{k}.norm_1": f"layers.{k}.norm_attention"}
        names |= {f"blocks.{k}.norm_2": f"layers.{k}.norm_feed_forward"}
        names |= {
            f"blocks.{k}.ga.{t}".rstrip("."): f"layers.{k}.attention.{o}".rstrip(".") for t, o in attention.items()
        }
        names |= {f"blocks.{k}.ffn.{t}": f"layers.{k}.feed_forward.{o}" for t, o in _FEED_FORWARD.items()}
    names |= {f"energy_block.{t}": f"heads.0.network.0.network.{o}" for t, o in _FEED_FORWARD.items()}
    return names | {f"force_block.{t}".rstrip("."): f"heads.1.attention.{o}".rstrip(".") for t, o in attention.items()}


def _rearranged(state_dict: Mapping[str, Tensor], hidden: int) -> dict[str, Tensor]:
    """Return the authors' parameters in our shapes, without buffers: tables for all elements, first maps in parts."""
    result: dict[str, Tensor] = {}
    for key, value in state_dict.items():
        module, _, kind = key.rpartition(".")
        if any(part in key for part in _BUFFERS):
            continue
        if module.endswith("_embedding") and value.dim() == 2:
            rows = value.new_zeros(NUM_ELEMENTS, value.shape[1])
            rows[: value.shape[0]] = value
            result[key] = rows
        elif kind in ("alpha_dot", "affine_weight", "affine_bias"):
            ours = {"alpha_dot": "alpha", "affine_weight": "weight", "affine_bias": "bias"}[kind]
            result[f"{module}.{ours}"] = value
        elif value.dim() == 3 and kind == "weight":  # a matrix for each degree
            result[key] = value.transpose(1, 2)
        else:
            result[key] = value
    for key in [key for key in result if key.endswith("rad_func.net.0.weight")]:
        table = key.replace("so2_conv_1.", "").replace("rad_func.net.0.weight", "source_embedding.weight")
        if table in result:
            module = key.removesuffix(".weight")
            sizes = [result[key].shape[1] - 2 * hidden, hidden, hidden]
            parts = result[key].split(sizes, dim=1)
            for suffix, part in zip(("", ".sender", ".receiver"), parts, strict=True):
                result[f"{module}{suffix}.weight"] = part
    for key in [key for key in result if ".norm_l0." in f".{key}"]:  # layer_norm_sh stores the scalars separately
        value = result.pop(key)
        key = key.replace("norm_l0.", "")
        result[key] = torch.cat([value.unsqueeze(0), result[key]]) if key in result else value
    return result


def load_reference(model: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Fill ``model`` with the authors' parameters, in their dtype.

    Raises:
        CheckpointError: a parameter is missing, left over, or of another shape.
    """
    arguments: dict[str, Any] = model.arguments  # type: ignore[assignment]
    parameters = _rearranged(state_dict, arguments["edge_channels"])
    load_parameters(model, parameters, _names(arguments["layers"], arguments["mmax"]))
    model.to(next(iter(state_dict[key] for key in state_dict if state_dict[key].is_floating_point())).dtype)
    head = model.heads[0]  # type: ignore[index]
    head.scale.fill_(1 / AVERAGE_NODES)  # type: ignore[union-attr]
