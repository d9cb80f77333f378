"""FAENet: the authors' hyperparameters and parameters in geoeq's form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import torch
from torch import Tensor

from geoeq.errors import CheckpointError, unknown_name
from geoeq.fields import NUM_ELEMENTS
from geoeq.layers.faenet import Message
from geoeq.layers.inputs.periodic_table import NO_GROUP, NOBLE_GASES, group_of, period_of
from geoeq.models.heads.head import Head
from geoeq.models.networks.faenet_heads import DecodedVector, Decoder, DecoderNorm, EveryLayerScalar
from geoeq.models.published.parameters import check_hyperparameters

__all__ = ["reference_arguments", "reference_names", "reference_state"]

_NEEDED = {"cutoff", "hidden_channels", "num_filters", "num_interactions", "num_gaussians"}
#: the published defaults
_DEFAULTS: dict[str, Any] = {
    "act": "swish",
    "tag_hidden_channels": 32,
    "pg_hidden_channels": 32,
    "phys_embeds": True,
    "phys_hidden_channels": 0,
    "second_layer_MLP": True,
    "skip_co": "concat",
    "mp_type": "updownscale_base",
    "graph_norm": True,
    "complex_mp": False,
    "energy_head": None,
    "out_dim": 1,
    "regress_forces": None,
    "force_decoder_type": "mlp",
    "force_decoder_model_config": {},
}
_WITHOUT_EFFECT = {"preprocess", "max_num_neighbors", "pred_as_dict", "use_pbc", "otf_graph"}

#: option -> its supported values, and what they are here
_KNOWN: dict[str, dict[Any, Any]] = {
    "act": {"swish": True, "silu": True},
    "out_dim": {1: True},
    "mp_type": {name: name for name in get_args(Message)},
    "skip_co": {"concat": "layers", "add": "layers", "concat_atom": "merged", None: "none", False: "none", "": "none"},
    "energy_head": {
        "weighted-av-final-embeds": "final",
        "weighted-av-initial-embeds": "initial",
        None: "none",
        False: "none",
        "": "none",
    },
    "regress_forces": {
        "direct": True,
        "direct_with_gradient_target": True,
        "from_energy": False,
        None: False,
        False: False,
        "": False,
    },
    "force_decoder_type": {"simple": "mlp", "mlp": "mlp", "res": "res", "res_updown": "res_updown"},
    "norm": {"batch1d": "batch", "layer": "layer", None: "none", "": "none"},
}
_ROWS = {"emb": NUM_ELEMENTS, "group_embedding": NO_GROUP + 1, "period_embedding": len(NOBLE_GASES) + 1}
_PROPERTIES = "embed_block.phys_emb.properties"
_CONSTANTS = ("distance_expansion.offset", "phys_emb.group", "phys_emb.period", "phys_emb.properties")

_MODULES = {
    "embed_block.emb": "embedding.element",
    "embed_block.tag_embedding": "embedding.tags",
    "embed_block.period_embedding": "embedding.periods",
    "embed_block.group_embedding": "embedding.groups",
    "embed_block.phys_lin": "embedding.property_map",
    "embed_block.lin": "embedding.first",
    "embed_block.lin_2": "embedding.second",
    "embed_block.lin_e1": "edges.vector",
    "embed_block.lin_e12": "edges.distance",
    "embed_block.lin_e2": "edges.second",
    "output_block.lin1": "heads.0.network.0.first",
    "output_block.lin2": "heads.0.network.0.last",
}
_LAYER = {
    "lin_geom": "filter",
    "lin_down": "down",
    "other_mlp": "second",
    "graph_norm.weight": "graph_norm.norm.scale",
    "graph_norm.bias": "graph_norm.norm.bias",
    "graph_norm.mean_scale": "graph_norm.shift",
}


def reference_arguments(state_dict: Mapping[str, Tensor], hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of ``FAENet`` for the authors' hyperparameters, with the properties in their state dict.

    Raises:
        CheckpointError: a hyperparameter is unknown, missing or not supported.
    """
    check_hyperparameters("FAENet", hyperparameters, _NEEDED, _DEFAULTS.keys() | _WITHOUT_EFFECT)
    settings = {**_DEFAULTS, **hyperparameters}
    options = ("act", "out_dim", "mp_type", "skip_co", "energy_head", "regress_forces")
    known = {name: _known(name, settings[name]) for name in options}
    weights = known["energy_head"]
    if weights == "initial" and known["skip_co"] != "layers":
        raise CheckpointError(
            "FAENet.from_reference: energy_head 'weighted-av-initial-embeds' needs skip_co 'concat' or 'add'."
        )
    linear = settings["skip_co"] == "concat"
    heads: list[Head] = [EveryLayerScalar("energy", "sum", "linear" if linear else "sum", weights, bias=linear)]
    if known["regress_forces"]:
        heads.append(_decoder(settings["force_decoder_type"], settings["force_decoder_model_config"]))
    properties: list[list[float]] = []
    if settings["phys_embeds"]:
        if _PROPERTIES not in state_dict:
            raise CheckpointError(f"The state dict lacks: {_PROPERTIES}.")
        properties = _rows(state_dict[_PROPERTIES], NUM_ELEMENTS).tolist()
    width = settings["hidden_channels"]
    return {
        "heads": heads,
        "width": width,
        "filters": width if settings["mp_type"] == "simple" else settings["num_filters"],
        "layers": settings["num_interactions"],
        "message": known["mp_type"],
        "norm": "batch" if settings["graph_norm"] else "none",
        "second": settings["complex_mp"],
        "skip": known["skip_co"],
        "num_basis": settings["num_gaussians"],
        "basis_cutoff": settings["cutoff"],
        "tag_width": settings["tag_hidden_channels"],
        "table_width": settings["pg_hidden_channels"],
        "properties": properties,
        "property_width": settings["phys_hidden_channels"] if properties else 0,
        "second_embedding": settings["second_layer_MLP"],
        "elements": _elements(state_dict),
    }


def reference_state(state_dict: Mapping[str, Tensor], arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the authors' parameters and buffers under their names in our form: full tables, and no constants.

    Args:
        state_dict: the authors' parameters and buffers.
        arguments: the result of ``reference_arguments``.
    """
    width, filters = arguments["width"], arguments["filters"]
    state = {key: value for key, value in state_dict.items() if not key.endswith(_CONSTANTS)}
    for table, size in _ROWS.items():
        key = f"embed_block.{table}.weight"
        if key in state:
            state[key] = _rows(state[key], size)
    for k in range(arguments["layers"]):  # (edge | sender | receiver) there, (receiver | sender | edge) here
        key = f"interaction_blocks.{k}.lin_geom.weight"
        if key in state and state[key].shape[-1] == filters + 2 * width:
            edge, sender, receiver = state[key].split([filters, width, width], dim=1)
            state[key] = torch.cat([receiver, sender, edge], dim=1)
    return state


def reference_names(arguments: Mapping[str, Any], decoder: str) -> dict[str, str]:
    """Return a table from the authors' names of modules, or of single parameters, to ours.

    Args:
        arguments: the result of ``reference_arguments``.
        decoder: the authors' ``force_decoder_type``.
    """
    names, energy = dict(_MODULES), arguments["heads"][0]
    names["w_lin" if energy.weights == "initial" else "output_block.w_lin"] = "heads.0.network.0.weight"
    names["mlp_skip_co"] = "merge" if arguments["skip"] == "merged" else "heads.0.pooled"
    for k in range(arguments["layers"]):
        theirs, ours = f"interaction_blocks.{k}", f"layers.{k}"
        names |= {f"{theirs}.{name}": f"{ours}.{mine}" for name, mine in _LAYER.items()}
        names[f"{theirs}.{'lin_up' if arguments['message'].startswith('updown') else 'lin_h'}"] = f"{ours}.up"
    if len(arguments["heads"]) > 1:
        head = arguments["heads"][1]
        depth = {"mlp": 0, "res": 2, "res_updown": 3}[head.kind]
        blocks = {f"mlp_{k + 1}": f"trunk.{k}" for k in range(depth)}
        blocks[f"mlp_{depth + 1}" if depth else "model"] = "network"
        for name, mine in blocks.items():
            names |= {f"decoder.{name}.{index}": f"heads.1.{mine}.{index}" for index in (0, 1)}
            last = 2 if decoder == "simple" else 3  # without a norm, its index is left empty
            names[f"decoder.{name}.{last}"] = f"heads.1.{mine}.{2 if head.norm == 'none' else 3}"
    return names


def _known(option: str, value: Any) -> Any:
    for known, ours in _KNOWN[option].items():
        if value == known and isinstance(value, bool) == isinstance(known, bool):
            return ours
    names = [str(known) for known in _KNOWN[option]]
    raise CheckpointError(f"FAENet.from_reference: {unknown_name(option, str(value), names)}")


def _decoder(theirs: str, configurations: Mapping[str, Mapping[str, Any]]) -> DecodedVector:
    """Return the head that predicts forces; ``configurations`` has one entry for each kind."""
    kind: Decoder = _known("force_decoder_type", theirs)
    settings = configurations.get(theirs, {})
    if "hidden_channels" not in settings:
        raise CheckpointError(
            f"FAENet.from_reference: force_decoder_model_config needs '{theirs}' with its hidden_channels."
        )
    norm: DecoderNorm = "none" if theirs == "simple" else _known("norm", settings.get("norm", "batch1d"))
    return DecodedVector("forces", settings["hidden_channels"], kind, norm)


def _rows(table: Tensor, count: int) -> Tensor:
    """Pad a table with rows of zeros."""
    rows = table.new_zeros(max(count, len(table)), *table.shape[1:])
    rows[: len(table)] = table
    return rows


def _elements(state_dict: Mapping[str, Tensor]) -> list[int]:
    """Return the elements that have a row in every table."""

    def count(key: str) -> int:
        return len(state_dict[key]) if key in state_dict else NUM_ELEMENTS

    groups, periods = (count(f"embed_block.{name}_embedding.weight") for name in ("group", "period"))
    last = min(count("embed_block.emb.weight"), count(_PROPERTIES))
    return [z for z in range(1, last) if group_of(z) < groups and period_of(z) < periods]
