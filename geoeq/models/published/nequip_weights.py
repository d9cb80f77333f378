"""NequIP: the hyperparameters and parameters of nequip 0.19 in geoeq's form."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import torch
from e3nn import o3
from torch import Tensor

from geoeq.errors import CheckpointError
from geoeq.layers.irreps.activation import activation_scale
from geoeq.layers.nequip import NequIPLayer
from geoeq.models.heads import GraphScalar
from geoeq.models.model import Model
from geoeq.models.published.nequip_layer_weights import (
    PublishedLayer,
    element_table,
    linear_weights_of,
    take_matrices,
)
from geoeq.models.published.parameters import NamedParameters, check_hyperparameters

__all__ = ["reference_arguments", "reference_parameters"]

_NEEDED = {"num_layers", "l_max", "parity", "num_features", "radial_mlp_depth", "radial_mlp_width", "r_max"}
_NEEDED |= {"avg_num_neighbors"}
_OPTIONAL = {
    "type_names",
    "type_embed_num_features",
    "num_bessels",
    "bessel_trainable",
    "polynomial_cutoff_p",
    "readout_mlp_hidden_layers_depth",
    "readout_mlp_hidden_layers_width",
    "readout_mlp_nonlinearity",
    "per_type_energy_scales",
    "per_type_energy_shifts",
}
#: options of training, of the number type and of derivatives, which change no number.
_WITHOUT_EFFECT = {
    "seed",
    "model_dtype",
    "do_derivatives",
    "per_type_energy_scales_trainable",
    "per_type_energy_shifts_trainable",
}


def reference_arguments(state_dict: Mapping[str, Tensor], hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of ``NequIP`` for the authors' hyperparameters.

    Raises:
        CheckpointError: a hyperparameter is unknown, missing or not supported.
    """
    check_hyperparameters("NequIP", hyperparameters, _NEEDED, _OPTIONAL | _WITHOUT_EFFECT)
    settings = hyperparameters
    widths = _widths(settings)
    depth = settings.get("readout_mlp_hidden_layers_depth", 0)
    if depth not in (0, 1) or settings.get("readout_mlp_hidden_layers_width") not in (None, widths[0]):
        raise CheckpointError(
            "NequIP.from_reference: the readout may have no hidden layer, or one as wide as the scalars; "
            f"readout_mlp_hidden_layers_depth is {depth}, "
            f"the width {settings.get('readout_mlp_hidden_layers_width')}."
        )
    if depth and settings.get("readout_mlp_nonlinearity", "silu") != "silu":
        raise CheckpointError("NequIP.from_reference: the only supported readout_mlp_nonlinearity is 'silu'.")
    neighbors = settings["avg_num_neighbors"]
    if isinstance(neighbors, Mapping):
        if len(set(neighbors.values())) > 1:
            raise CheckpointError("NequIP.from_reference: avg_num_neighbors must be one number for all types.")
        neighbors = next(iter(neighbors.values()))
    return {
        "heads": [GraphScalar("energy", atomic=True, linear=not depth, element_scales=True)],
        "irreps": " + ".join(
            f"{mul}x{degree}{parity}"
            for degree, mul in enumerate(widths)
            for parity in ("eo" if settings["parity"] else "eo"[degree % 2])
        ),
        "irreps_last": f"{widths[0]}x0e",
        "layers": settings["num_layers"],
        "lmax_edge": settings["l_max"],
        "self_connection": "element",
        "self_connection_first": "none",
        "element_width": _embedding_width(settings),
        "embedding_width": _embedding_width(settings),
        "hidden": [settings["radial_mlp_width"]] * settings["radial_mlp_depth"],
        "neighbors": neighbors,
        "cutoff": settings["r_max"],
        "num_basis": settings.get("num_bessels", 8),
        "learned_basis": True,
        "power": settings.get("polynomial_cutoff_p", 6),
        "elements": _elements(settings),
    }


def reference_parameters(
    state_dict: Mapping[str, Tensor], hyperparameters: Mapping[str, Any], model: Model
) -> dict[str, Tensor]:
    """Return the authors' parameters and buffers under our names.

    Args:
        state_dict: the authors' parameters and buffers.
        hyperparameters: the authors' hyperparameters.
        model: the network made with the result of ``reference_arguments``.

    Raises:
        CheckpointError: a parameter is missing, left over, or of another shape.
    """
    settings, elements = hyperparameters, _elements(hyperparameters)
    names = {name.rpartition("type_embed.")[0] for name in state_dict if "type_embed." in name}
    prefix = names.pop() if len(names) == 1 else ""
    found = {name.removeprefix(prefix): value for name, value in state_dict.items()}
    theirs = NamedParameters(found, _is_constant)
    width, bessels = _embedding_width(settings), settings.get("num_bessels", 8)

    embedding = element_table(theirs.take("type_embed.embed_module.weight", [len(elements), width]), elements)
    ours = {
        "embedding.scalars.element.weight": embedding,
        "basis.frequencies": theirs.take("bessel_encode.bessel_weights", [1, bessels]).flatten(),
    }
    features, harmonics = o3.Irreps(f"{width}x0e"), o3.Irreps.spherical_harmonics(settings["l_max"])
    for k, layer in enumerate(model.layers):  # type: ignore[arg-type]
        published = PublishedLayer(features, layer.irreps_out, harmonics)
        values = _layer(theirs, f"layer{k}_convnet", published, layer, settings, found)
        if k:
            values["own_of_element.embedding.weight"] = embedding
        ours |= {f"layers.{k}.{name}": value for name, value in values.items()}
        features = layer.irreps_out
    ours |= _head(theirs, settings, features.dim, elements)
    theirs.finish("NequIP")
    return ours


def _is_constant(name: str, value: Tensor) -> bool:
    """Whether a buffer of the authors is empty or follows from the hyperparameters."""
    return value.numel() == 0 or name.endswith(("output_mask", "_rmax_recip")) or "._w3j_" in name


def _widths(settings: Mapping[str, Any]) -> list[int]:
    """Return the number of features of each degree."""
    lmax, widths = settings["l_max"], settings["num_features"]
    widths = [widths] * (lmax + 1) if isinstance(widths, int) else list(widths)
    if len(widths) != lmax + 1:
        raise CheckpointError(
            f"NequIP.from_reference: num_features is {widths}; l_max {lmax} needs {lmax + 1} of them."
        )
    return widths


def _embedding_width(settings: Mapping[str, Any]) -> int:
    width: int = settings.get("type_embed_num_features") or _widths(settings)[0]
    return width


def _elements(settings: Mapping[str, Any]) -> list[int]:
    """Return the atomic numbers of the types, in their order."""
    from ase.data import atomic_numbers

    shifts = settings.get("per_type_energy_shifts")
    names = settings.get("type_names") or (list(shifts) if isinstance(shifts, Mapping) else [])
    if not names:
        raise CheckpointError("NequIP.from_reference needs the hyperparameter 'type_names'.")
    for name in names:
        if atomic_numbers.get(name, 0) < 1:
            raise CheckpointError(f"NequIP.from_reference: the type '{name}' is not the symbol of an element.")
    return [atomic_numbers[name] for name in names]


def _layer(
    theirs: NamedParameters,
    name: str,
    published: PublishedLayer,
    layer: NequIPLayer,
    settings: Mapping[str, Any],
    found: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    features, gate = published.irreps_in, published.before_gate
    sizes = [layer.edge_width, *[settings["radial_mlp_width"]] * settings["radial_mlp_depth"], published.num_weights]
    radial = []
    for k, (before, after) in enumerate(itertools.pairwise(sizes)):
        matrix = theirs.take(f"{name}.conv.edge_mlp.mlp.{2 * k}.weight", [before, after])
        gain = math.sqrt(2) / activation_scale("silu") if k else 1.0  # their SiLU is not normalized
        radial.append(matrix * gain / math.sqrt(before))
    product = f"{name}.conv.tp_scatter.tp._compiled_main_left_right."
    symbols = {key.removeprefix(product): value for key, value in found.items() if key.startswith(product)}
    radial[-1] = published.last_matrix(radial[-1], layer, symbols)
    ours = {f"radial.matrices.{k}": matrix for k, matrix in enumerate(radial)}

    before = take_matrices(theirs, f"{name}.conv.linear_1.weight", features, features)
    after = take_matrices(theirs, f"{name}.conv.linear_2.weight", published.product, gate)
    ours |= linear_weights_of("before", layer.before.irreps_out, before)
    ours |= linear_weights_of("after", layer.after.irreps_out, published.after_product(after, layer))
    if layer.own_of_element is not None:
        width = _embedding_width(settings)
        own = take_matrices(theirs, f"{name}.conv.sc.weight", features, gate, width)
        blocks = [layer.gate.irreps_in[n].ir for n in layer.own_blocks]
        ours |= {f"own_of_element.weights.{n}": own[ir].transpose(0, 1) for n, ir in enumerate(blocks)}
    return ours


def _head(theirs: NamedParameters, settings: Mapping[str, Any], width: int, elements: list[int]) -> dict[str, Tensor]:
    depth = settings.get("readout_mlp_hidden_layers_depth", 0)
    ours = {}
    for k in range(depth + 1):
        out = width if k < depth else 1
        matrix = theirs.take(f"per_atom_energy_readout.mlp_module.mlp.{2 * k}.weight", [width, out])
        gain = math.sqrt(2) if k else 1.0
        ours[f"heads.0.network.{2 * k}.weight"] = matrix.mT * gain / math.sqrt(width)
        ours[f"heads.0.network.{2 * k}.bias"] = matrix.new_zeros(out)
    for name, key, default in (("element_scales", "scales", 1.0), ("references", "shifts", 0.0)):
        value, buffer = torch.tensor([default]), f"per_type_energy_scale_shift.{key}"
        if buffer in theirs.values or settings.get(f"per_type_energy_{key}") is not None:
            value = theirs.take(buffer, theirs.values.get(buffer, value).shape).flatten()
        ours[f"heads.0.{name}"] = element_table(value.double().expand(len(elements)), elements)
    return ours
