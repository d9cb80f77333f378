"""Equiformer: the authors' hyperparameters in geoeq's form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from e3nn import o3
from torch import Tensor

from geoeq.errors import CheckpointError
from geoeq.models.heads import GraphScalar
from geoeq.models.published.parameters import check_hyperparameters

__all__ = ["QM9_ATOMS", "QM9_DEGREE", "reference_arguments"]

#: mean number of neighbours in QM9 with a cutoff of 5 Å, a constant of the published code.
QM9_DEGREE = 15.57930850982666
#: mean number of atoms in QM9.
QM9_ATOMS = 18.03065905448718
#: the elements of the published QM9 network, in the order of its table.
_QM9_ELEMENTS = (1, 6, 7, 8, 9)

_SAME = {"num_heads": "num_heads", "num_layers": "layers", "number_of_basis": "num_basis", "max_radius": "cutoff"}
_SAME |= {"irreps_node_embedding": "irreps", "irreps_head": "irreps_head", "irreps_feature": "irreps_out"}
_SAME |= {"irreps_mlp_mid": "irreps_middle", "irreps_pre_attn": "irreps_message", "fc_neurons": "radial_hidden"}
_SAME |= {"rescale_degree": "rescale_degree", "nonlinear_message": "nonlinear", "irreps_sh": "irreps_harmonics"}
_SAME |= {"alpha_drop": "attention_dropout", "proj_drop": "dropout", "out_drop": "out_dropout"}
_SAME |= {"drop_path_rate": "stochastic_depth"}
_NEEDED = {"irreps_node_embedding", "num_layers", "irreps_sh", "max_radius", "number_of_basis", "fc_neurons"}
_NEEDED |= {"irreps_feature", "irreps_head", "num_heads", "irreps_mlp_mid"}
_WITHOUT_EFFECT = {"irreps_in", "mean", "std", "atomref"}
_OPTIONAL = (
    set(_SAME) | _WITHOUT_EFFECT | {"irreps_node_attr", "norm_layer", "basis_type", "scale", "use_attn_head"}
) - _NEEDED

_NORMS = {"layer": "layer", "fast_layer": "layer", "graph": "graph", "instance": "instance"}
_BASES = {"gaussian": "gaussian", "bessel": "bessel", "exp": "expnormal"}


def reference_arguments(hyperparameters: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the arguments of ``Equiformer`` for the authors' hyperparameters.

    Raises:
        CheckpointError: a hyperparameter is unknown, missing, or has an unsupported value.
    """
    settings = hyperparameters
    check_hyperparameters("Equiformer", settings, _NEEDED, _OPTIONAL)
    arguments = {ours: settings[theirs] for theirs, ours in _SAME.items() if theirs in settings}
    if settings["irreps_mlp_mid"] is None:
        arguments["irreps_middle"] = settings["irreps_node_embedding"]
    if settings["irreps_sh"] is None:
        lmax = o3.Irreps(settings["irreps_node_embedding"]).lmax
        arguments["irreps_harmonics"] = str(o3.Irreps.spherical_harmonics(lmax))
    for name in ("irreps_node_embedding", "irreps_feature", "irreps_head", "irreps_mlp_mid", "irreps_pre_attn"):
        _check_sorted(name, settings.get(name))
    _check_value("irreps_node_attr", o3.Irreps(settings.get("irreps_node_attr", "1x0e")), [o3.Irreps("1x0e")])
    _check_value("use_attn_head", settings.get("use_attn_head", False), [False])
    features = o3.Irreps(settings["irreps_feature"])
    if features != o3.Irreps(f"{features.dim}x0e"):
        raise CheckpointError(f"Equiformer.from_reference: irreps_feature must be scalars, not {features}.")
    norm, basis = settings.get("norm_layer", "layer"), settings.get("basis_type", "gaussian")
    _check_value("norm_layer", norm, _NORMS)
    _check_value("basis_type", basis, _BASES)
    width = o3.Irreps(settings["irreps_node_embedding"]).count("0e")
    table = state_dict.get("atom_embed.atom_type_lin.tp.weight")
    return arguments | {
        "heads": [GraphScalar("energy", reduce="sum")],
        "norm": _NORMS[norm],
        "basis": _BASES[basis],
        "average_degree": QM9_DEGREE,
        "smooth": False,
        "elements": _elements(0 if table is None else table.numel() // width),
    }


def _check_value(name: str, value: object, known: Any) -> None:
    if value not in known:
        listed = ", ".join(map(repr, known))
        raise CheckpointError(f"Equiformer.from_reference: {name} is {value!r}; supported: {listed}.")


def _check_sorted(name: str, irreps: str | None) -> None:
    entries = o3.Irreps(irreps or "")
    if [(ir.l, -ir.p) for _, ir in entries] != sorted({(ir.l, -ir.p) for _, ir in entries}):
        raise CheckpointError(f"Equiformer.from_reference: {name} ({irreps}) must be sorted, with each irrep once.")


def _elements(count: int) -> tuple[int, ...]:
    """Return the atomic numbers of the rows of the authors' table: those of QM9, or 0, 1, 2, ..."""
    return _QM9_ELEMENTS if count == len(_QM9_ELEMENTS) else tuple(range(count))
