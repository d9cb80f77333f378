"""SevenNet, which has the form of NequIP: configuration and parameters of sevenn in geoeq's form.

A network with several modalities (levels of theory) appends a one-hot vector to scalars before linear maps. For one
modality that is a bias: the model that ``reference_arguments`` describes has the modality that is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from e3nn import o3
from torch import Tensor

from geoeq.errors import CheckpointError
from geoeq.layers.nequip import NequIPLayer
from geoeq.models.heads import GraphScalar
from geoeq.models.model import Model
from geoeq.models.published.nequip_layer_weights import (
    Matrices,
    PublishedLayer,
    element_table,
    linear_weights_of,
    take_matrices,
)
from geoeq.models.published.parameters import NamedParameters
from geoeq.models.published.sevennet_settings import columns_are_sorted, irreps_of_layers, lmax_of_edges, settings_of

__all__ = ["is_sevennet", "reference_arguments", "reference_parameters"]

_BASIS = "edge_embedding.basis_function.coeffs"


def is_sevennet(state_dict: Mapping[str, Tensor]) -> bool:
    """Return whether a state dict is one of sevenn."""
    return _BASIS in state_dict


def reference_arguments(state_dict: Mapping[str, Tensor], hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of ``NequIP`` for a configuration of sevenn.

    Raises:
        CheckpointError: an entry is unknown, missing or not supported.
    """
    settings = settings_of(hyperparameters)
    envelope = settings["cutoff_function"]
    name = envelope.get("cutoff_function_name")
    if name not in ("poly_cut", "XPLOR") or settings["radial_basis"].get("radial_basis_name") != "bessel":
        raise CheckpointError(
            "SevenNet: the radial basis must be 'bessel' with 'poly_cut' or 'XPLOR'; the configuration has "
            f"{settings['radial_basis']} and {envelope}."
        )
    kinds = settings["self_connection_type"]
    kinds = [kinds] * settings["num_convolution_layer"] if isinstance(kinds, str) else list(kinds)
    ours = {"linear": "linear", "nequip": "element"}
    if len(set(kinds[1:])) > 1 or not set(kinds) <= set(ours):
        raise CheckpointError(
            f"SevenNet: self_connection_type is {kinds}; all layers but the first must have the same, 'linear' or "
            "'nequip'."
        )
    irreps = irreps_of_layers(settings)
    return {
        "heads": [GraphScalar("energy", atomic=True, linear=True, element_scales=True)],
        "irreps": [str(entry) for entry in irreps[1:]],
        "layers": len(irreps) - 1,
        "lmax_edge": lmax_of_edges(settings),
        "group": "E(3)" if settings["is_parity"] else "SE(3)",
        "self_connection": ours[kinds[-1]],
        "self_connection_first": ours[kinds[0]],
        "element_width": len(settings["_type_map"]),
        "embedding_width": irreps[0].dim,
        "hidden": list(settings["weight_nn_hidden_neurons"]),
        "neighbors": 1.0,  # the denominators are part of the radial networks
        "bias": settings["use_bias_in_linear"] or settings["use_modality"],
        "cutoff": float(settings["cutoff"]),
        "num_basis": settings["radial_basis"].get("bessel_basis_num", 8),
        "learned_basis": True,
        "power": envelope.get("poly_cut_p_value", 6),
        "onset": envelope["cutoff_on"] if name == "XPLOR" else None,
        "elements": list(settings["_type_map"]),
    }


def reference_parameters(
    state_dict: Mapping[str, Tensor], hyperparameters: Mapping[str, Any], model: Model
) -> dict[str, Tensor]:
    """Return the parameters and buffers of sevenn under our names.

    Args:
        state_dict: parameters and buffers of sevenn.
        hyperparameters: its configuration.
        model: the network made with the result of ``reference_arguments``.

    Raises:
        CheckpointError: a parameter is missing, left over, or of another shape.
    """
    settings = settings_of(hyperparameters)
    theirs = NamedParameters(state_dict, _is_constant)
    elements, irreps = list(settings["_type_map"]), irreps_of_layers(settings)
    maps = _LinearMaps(theirs, settings)

    one_hot = o3.Irreps(f"{len(elements)}x0e")
    rows, bias = maps.take("onehot_to_feature_x", one_hot, irreps[0], "use_modal_node_embedding")
    table = rows[o3.Irrep("0e")].squeeze(1) + bias
    ours = {
        "basis.frequencies": theirs.take(_BASIS, [settings["radial_basis"].get("bessel_basis_num", 8)])
        * settings["cutoff"]
        / math.pi,
        "embedding.scalars.element.weight": element_table(table, elements),
    }
    parity = -1 if settings["is_parity"] else 1
    harmonics = o3.Irreps.spherical_harmonics(lmax_of_edges(settings), parity)
    for k, layer in enumerate(model.layers):  # type: ignore[arg-type]
        unused = (1,) if k == len(irreps) - 2 else (1, -1)
        published = PublishedLayer(irreps[k], irreps[k + 1], harmonics, columns_are_sorted(settings), unused)
        values = _layer(maps, k, published, layer, settings, state_dict)
        ours |= {f"layers.{k}.{name}": value for name, value in values.items()}
    ours |= _head(maps, settings, irreps[-1], elements)
    theirs.finish("SevenNet")
    return ours


def _is_constant(name: str, value: Tensor) -> bool:
    return value.numel() == 0 or name.endswith("output_mask") or "._w3j_" in name


class _LinearMaps:
    """The linear maps of sevenn, whose rows for the modality are part of their biases."""

    def __init__(self, theirs: NamedParameters, settings: Mapping[str, Any]) -> None:
        self.theirs, self.settings = theirs, settings

    def take(self, name: str, irreps_in: o3.Irreps, irreps_out: o3.Irreps, modal: str = "") -> tuple[Matrices, Tensor]:
        """Return the matrices, and the bias of all scalars, zero if there is none.

        Args:
            name: name of the module.
            irreps_in, irreps_out: irreps in the order of sevenn, without the modality.
            modal: the entry of the configuration that says whether the modality is an input.
        """
        modalities = (
            len(self.settings["_modal_map"]) if self.settings["use_modality"] and self.settings.get(modal) else 0
        )
        whole = irreps_in + o3.Irreps(f"{modalities}x0e" if modalities else "")
        matrices = take_matrices(self.theirs, f"{name}.linear.weight", whole, irreps_out)
        scalar = o3.Irrep("0e")
        bias = matrices[scalar].new_zeros(irreps_out.count(scalar))
        if f"{name}.linear.bias" in self.theirs.values:
            bias = bias + self.theirs.take(f"{name}.linear.bias", bias.shape)
        if modalities:
            rows = matrices[scalar]
            bias = bias + rows[len(rows) - modalities + self.settings["_modal_map"][self.settings["modality"]], 0]
            matrices[scalar] = rows[: len(rows) - modalities]
        return matrices, bias


def _layer(
    maps: _LinearMaps,
    number: int,
    published: PublishedLayer,
    layer: NequIPLayer,
    settings: Mapping[str, Any],
    state_dict: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    theirs, name = maps.theirs, f"{number}_convolution"
    widths = [layer.edge_width, *settings["weight_nn_hidden_neurons"]]
    radial = []
    for k, width in enumerate(widths):
        key = f"{name}.weight_nn.layer{k}.weight"
        shape = [width, widths[k + 1]] if k + 1 < len(widths) else [width, published.num_weights]
        radial.append(theirs.take(key, shape) / math.sqrt(width))
    product = f"{name}.convolution._compiled_main_left_right."
    symbols = {key.removeprefix(product): value for key, value in state_dict.items() if key.startswith(product)}
    radial[-1] = published.last_matrix(radial[-1], layer, symbols) / theirs.take(f"{name}.denominator", [1])
    ours = {f"radial.matrices.{k}": matrix for k, matrix in enumerate(radial)}

    features, gate = published.irreps_in, published.before_gate
    before, bias = maps.take(f"{number}_self_interaction_1", features, features, "use_modal_self_inter_intro")
    after, after_bias = maps.take(f"{number}_self_interaction_2", published.product, gate, "use_modal_self_inter_outro")
    ours |= linear_weights_of("before", layer.before.irreps_out, before)
    ours |= linear_weights_of("after", layer.after.irreps_out, published.after_product(after, layer))
    if layer.before.bias is not None:
        ours |= {"before.bias": bias, "after.bias": after_bias}

    own = f"{number}_self_connection_intro"
    irreps_own = [layer.gate.irreps_in[n].ir for n in layer.own_blocks]
    if layer.own is not None:
        matrices = take_matrices(theirs, f"{own}.linear.weight", features, gate)
        ours |= {f"own.weights.{n}": matrices[ir].squeeze(1) for n, ir in enumerate(irreps_own)}
    elif layer.own_of_element is not None:
        elements = list(settings["_type_map"])
        matrices = take_matrices(theirs, f"{own}.fc_tensor_product.weight", features, gate, len(elements))
        ours |= {f"own_of_element.weights.{n}": matrices[ir].transpose(0, 1) for n, ir in enumerate(irreps_own)}
        one_hot = torch.eye(len(elements), dtype=radial[0].dtype)
        ours["own_of_element.embedding.weight"] = element_table(one_hot, elements)
    return ours


def _head(
    maps: _LinearMaps, settings: Mapping[str, Any], features: o3.Irreps, elements: list[int]
) -> dict[str, Tensor]:
    """Return the readout, whose two linear maps are one, and the scales and shifts of the elements."""
    scalar, hidden = o3.Irrep("0e"), o3.Irreps(f"{features.dim // 2}x0e")
    first, offset = maps.take("reduce_input_to_hidden", features, hidden, "use_modal_output_block")
    second, bias = maps.take("reduce_hidden_to_energy", hidden, o3.Irreps("0e"))
    matrix = second[scalar].squeeze(1)
    ours = {
        "heads.0.network.0.weight": (first[scalar].squeeze(1) @ matrix).mT,
        "heads.0.network.0.bias": offset @ matrix + bias,
    }
    for name, key in (("element_scales", "scale"), ("references", "shift")):
        value = maps.theirs.values.get(f"rescale_atomic_energy.{key}")
        if value is None:
            raise CheckpointError(f"The state dict lacks: rescale_atomic_energy.{key}.")
        maps.theirs.take(f"rescale_atomic_energy.{key}", value.shape)
        if value.dim() == 2:
            value = value[settings["_modal_map"][settings["modality"]]]
        ours[f"heads.0.{name}"] = element_table(value.double().expand(len(elements)), elements)
    return ours
