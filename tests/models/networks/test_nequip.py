"""NequIP: energies of single atoms, its options, and what ``from_reference`` refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from e3nn import o3
from safetensors.torch import load_file
from torch import Tensor

from geoeq.errors import CheckpointError, InputError
from geoeq.models import Equiformer, GraphScalar, Model, NequIP, NodeVector
from geoeq.parity import SHIPPED
from geoeq.symmetry import assert_equivariant, random_batch

GOLDEN = Path(__file__).parents[2] / "golden"
SMALL: dict[str, Any] = {"layers": 2, "hidden": (8,), "num_basis": 4, "cutoff": 4.0}


def published(name: str, folder: Path = SHIPPED) -> tuple[dict[str, Tensor], dict[str, Any]]:
    path = folder / f"{name}.safetensors"
    parameters = {key[6:]: value for key, value in load_file(path).items() if key.startswith("param.")}
    return parameters, json.loads(path.with_suffix(".json").read_text())["hyperparameters"]


@pytest.mark.parametrize(
    ("network", "order"),
    [
        (NequIP, "4x0e + 2x0o + 2x1e + 3x1o"),
        (NequIP, "2x1o + 4x0e + 2x2e + 1x1o"),
        (Equiformer, "2x1o + 4x0e + 2x2e + 1x1o"),
    ],
)
def test_forces_are_equivariant_whatever_the_order_of_the_irreps(network: type[Model], order: str) -> None:
    """A head took the columns after the scalars as vectors, which were others."""
    torch.manual_seed(0)
    heads = [GraphScalar("energy"), NodeVector("forces")]
    changes = {"irreps_last": order} if network is NequIP else {"irreps_out": order, "layers": 1}
    arguments = network.example().arguments | {"heads": heads} | changes
    model = network(**arguments).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    assert_equivariant(model)


def test_a_single_atom_has_the_energy_of_its_element() -> None:
    model = NequIP([GraphScalar("energy")], "4x0e + 2x1o", self_connection_first="none", **SMALL).double()
    data = random_batch((1, 1))
    data.energy = torch.tensor([-3.0, -5.0], dtype=torch.float64)
    data.z = torch.tensor([1, 6])
    model.fit_heads(data)
    offset = model.heads[0].network(torch.zeros(1, 4, dtype=torch.float64)).squeeze()
    expected = model.heads[0].references[data.z] + model.heads[0].scale * offset
    torch.testing.assert_close(model(data)["energy"], expected.detach(), rtol=1e-12, atol=1e-12)


def test_irreps_of_each_layer_and_of_the_last() -> None:
    model = NequIP([GraphScalar("energy")], ["4x0e + 3x1o", "2x0e + 5x2e"], irreps_last="6x0e", **SMALL)
    assert [str(layer.irreps_out) for layer in model.layers] == ["4x0e+3x1o", "6x0e"]
    with pytest.raises(InputError, match="irreps has 3 entries for 2 layers"):
        NequIP([GraphScalar("energy")], ["4x0e"] * 3, **SMALL)
    with pytest.raises(InputError, match=r"no scalars \(0e\); give embedding_width"):
        NequIP([GraphScalar("energy")], "4x1o", **SMALL)
    with pytest.raises(InputError, match="NequIP needs a cutoff or a basis_cutoff"):
        NequIP([GraphScalar("energy")], cutoff=None)
    with pytest.raises(InputError, match=r"basis_cutoff is 5\.0 Å, beyond the cutoff, 4\.0 Å"):
        NequIP([GraphScalar("energy")], cutoff=4.0, basis_cutoff=5.0)


def test_the_groups_have_their_products() -> None:
    """Without reflections, the cross product of vectors gives vectors: more weights for the same irreps."""
    natural, rotations = (NequIP([GraphScalar("energy")], "4x0e + 4x1o", group=g, **SMALL) for g in ("E(3)", "SE(3)"))
    assert [model.layers[1].paths.weight_numel for model in (natural, rotations)] == [16, 20]
    assert rotations.heads[0].irreps == natural.heads[0].irreps == o3.Irreps("4x0e + 4x1o")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_feature": 8}, r"No hyperparameter is called 'num_feature'.*num_features"),
        ({"num_features": [8, 8, 8]}, r"num_features is \[8, 8, 8\]; l_max 1 needs 2"),
        ({"avg_num_neighbors": {"H": 3.0, "C": 4.0}}, "avg_num_neighbors must be one number for all types"),
        ({"readout_mlp_hidden_layers_depth": 2}, "the readout may have no hidden layer, or one as wide"),
        ({"per_type_energy_shifts": None}, "needs the hyperparameter 'type_names'"),
        ({"type_names": ["H", "C", "N", "O", "Xy"]}, "the type 'Xy' is not the symbol of an element"),
        ({"num_layers": 2}, "shape"),
        ({"num_layers": 4}, "shape"),
        ({"radial_mlp_width": 11}, r"edge_mlp\.mlp\.0\.weight' has shape \[8, 12\]; this model needs \[8, 11\]"),
    ],
    ids=str,
)
def test_what_from_reference_refuses_of_nequip(changes: dict[str, Any], message: str) -> None:
    parameters, hyperparameters = published("nequip/parity_l1")
    with pytest.raises(CheckpointError, match=message):
        NequIP.from_reference(parameters, **(hyperparameters | changes))


def test_parameters_that_are_missing_or_left_over_are_named() -> None:
    parameters, hyperparameters = published("nequip/parity_l1")
    with pytest.raises(CheckpointError, match=r"'extra\.weight' has no place in this NequIP"):
        NequIP.from_reference(parameters | {"extra.weight": torch.zeros(1)}, **hyperparameters)
    parameters.pop("model.func.layer1_convnet.conv.sc.weight")
    with pytest.raises(CheckpointError, match=r"The state dict lacks: layer1_convnet\.conv\.sc\.weight"):
        NequIP.from_reference(parameters, **hyperparameters)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modality": None}, r"several modalities; name one with modality=. Known: a, b"),
        ({"modality": "c"}, r"No modality is called 'c'.*Known: a, b"),
        ({"act_radial": "ssp"}, "act_radial is 'ssp'; the only supported value is 'silu'"),
        ({"readout_as_fcn": True}, "readout_as_fcn is True"),
        ({"self_connection_type": ["linear", "linear", "nequip"]}, "all layers but the first must have the same"),
        ({"cutoff_function": {"cutoff_function_name": "cosine"}}, "'poly_cut' or 'XPLOR'"),
        ({"version": "new"}, "the version is 'new'; it must be that of sevenn"),
        ({"num_convolution_layer": 2}, "irreps_manual has 4 entries for 2 layers"),
        ({"use_bias_in_linear": False, "use_modal_output_block": False}, "reduce_input_to_hidden"),
    ],
    ids=str,
)
def test_what_from_reference_refuses_of_sevennet(changes: dict[str, Any], message: str) -> None:
    parameters, hyperparameters = published("sevennet/two_modalities", GOLDEN)
    with pytest.raises(CheckpointError, match=message):
        NequIP.from_reference(parameters, **(hyperparameters | changes))


def test_a_network_without_modalities_takes_none() -> None:
    parameters, hyperparameters = published("sevennet/parity_element_l2")
    with pytest.raises(CheckpointError, match="this network has no modalities; leave out 'PBE'"):
        NequIP.from_reference(parameters, **hyperparameters, modality="PBE")


def test_each_modality_is_another_model() -> None:
    parameters, hyperparameters = published("sevennet/two_modalities", GOLDEN)
    data = random_batch((4, 3))
    data.z = torch.tensor([1, 6, 7, 8, 9, 6, 1])
    first, second = (
        NequIP.from_reference(parameters, **(hyperparameters | {"modality": name}))(data)["energy"] for name in "ab"
    )
    assert (first - second).abs().min() > 0.01
