"""The configuration of SevenNet, as sevenn stores it: defaults, what is supported, and the irreps of the layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from e3nn import o3

from geoeq.errors import CheckpointError, unknown_name
from geoeq.models.published.parameters import check_hyperparameters

__all__ = ["ENTRIES", "columns_are_sorted", "irreps_of_layers", "lmax_of_edges", "settings_of"]

#: entries of the configuration that describe the network, with the defaults of sevenn.
_DEFAULTS: dict[str, Any] = {
    "cutoff": 4.5,
    "channel": 32,
    "irreps_manual": False,
    "lmax": 1,
    "lmax_edge": -1,
    "lmax_node": -1,
    "is_parity": True,
    "num_convolution_layer": 3,
    "radial_basis": {"radial_basis_name": "bessel"},
    "cutoff_function": {"cutoff_function_name": "poly_cut"},
    "act_radial": "silu",
    "act_scalar": {"e": "silu", "o": "tanh"},
    "act_gate": {"e": "silu", "o": "tanh"},
    "weight_nn_hidden_neurons": [64, 64],
    "use_bias_in_linear": False,
    "readout_as_fcn": False,
    "self_connection_type": "nequip",
    "interaction_type": "nequip",
    "_normalize_sph": True,
    "use_modality": False,
    "use_modal_node_embedding": False,
    "use_modal_self_inter_intro": False,
    "use_modal_self_inter_outro": False,
    "use_modal_output_block": False,
    "use_modal_wise_shift": False,
    "use_modal_wise_scale": False,
    "_modal_map": {},
    "version": "0.13.0",
}
#: values of entries that are the only supported ones.
_FIXED = {
    "act_radial": "silu",
    "act_scalar": {"e": "silu", "o": "tanh"},
    "act_gate": {"e": "silu", "o": "tanh"},
    "readout_as_fcn": False,
    "interaction_type": "nequip",
    "_normalize_sph": True,
}

#: names of all entries of a configuration that ``NequIP.from_reference`` takes.
ENTRIES = frozenset({*_DEFAULTS, "_type_map"})


def settings_of(hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration with defaults, after checking it; ``_type_map`` is in the order of the types.

    Raises:
        CheckpointError: an entry is unknown, missing or not supported.
    """
    check_hyperparameters("NequIP", hyperparameters, {"_type_map"}, {*_DEFAULTS, "modality"})
    settings = _DEFAULTS | dict(hyperparameters)
    if "_normalize_sph" not in hyperparameters:  # sevenn before 0.10 need not have normalised the edges' vectors
        settings["_normalize_sph"] = _version(settings) >= (0, 10)
    for name, value in _FIXED.items():
        if settings[name] != value:
            raise CheckpointError(f"SevenNet: {name} is {settings[name]!r}; the only supported value is {value!r}.")
    places = {int(number): int(place) for number, place in settings["_type_map"].items()}
    settings["_type_map"] = dict(sorted(places.items(), key=lambda pair: pair[1]))
    if settings["use_modality"]:
        known, modality = settings["_modal_map"], settings.get("modality")
        if modality not in known:
            asked = (
                unknown_name("modality", str(modality), known) if modality else f"Known: {', '.join(sorted(known))}."
            )
            raise CheckpointError(f"SevenNet has several modalities; name one with modality=. {asked}")
    elif settings.get("modality") is not None:
        raise CheckpointError(f"SevenNet: this network has no modalities; leave out '{settings['modality']}'.")
    return settings


def lmax_of_edges(settings: Mapping[str, Any]) -> int:
    """Return the highest degree of the harmonics."""
    lmax: int = settings["lmax_edge"] if settings["lmax_edge"] > 0 else settings["lmax"]
    return lmax


def columns_are_sorted(settings: Mapping[str, Any]) -> bool:
    """Return whether weights of a convolution are sorted by the irrep of the result, as since version 0.11.

    Raises:
        CheckpointError: the version is not a version.
    """
    return _version(settings) >= (0, 11) and settings["version"] != "0.11.0.dev0"


def _version(settings: Mapping[str, Any]) -> tuple[int, ...]:
    version = str(settings["version"])
    try:
        return tuple(int(part) for part in version.split(".")[:2])
    except ValueError as error:
        raise CheckpointError(
            f"SevenNet: the version is {version!r}; it must be that of sevenn, such as '0.13.0'."
        ) from error


def irreps_of_layers(settings: Mapping[str, Any]) -> list[o3.Irreps]:
    """Return the irreps of the features before the first layer and after each.

    Raises:
        CheckpointError: their number is not that of the layers.
    """
    layers = settings["num_convolution_layer"]
    if settings["irreps_manual"]:
        irreps = [o3.Irreps(entry) for entry in settings["irreps_manual"]]
        if len(irreps) != layers + 1:
            raise CheckpointError(f"SevenNet: irreps_manual has {len(irreps)} entries for {layers} layers.")
        return irreps
    channels, lmax = settings["channel"], settings["lmax_node"] if settings["lmax_node"] > 0 else settings["lmax"]
    harmonics = o3.Irreps.spherical_harmonics(lmax_of_edges(settings), -1 if settings["is_parity"] else 1)
    irreps = [o3.Irreps(f"{channels}x0e")]
    for layer in range(layers):
        products = {ir for _, first in irreps[-1] for _, second in harmonics for ir in first * second}
        last = layer == layers - 1
        kept = [ir for ir in products if ir.l <= (0 if last else lmax) and (ir.p == 1 or not last)]
        irreps.append(o3.Irreps([(channels, ir) for ir in kept]).sort().irreps)
    return irreps
