"""Files of SevenNet: read without executing anything, and with their authors' numbers."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ase import Atoms
from safetensors.torch import load_file
from torch_geometric.data import Batch, Data

from geoeq.errors import CheckpointError, DataError
from geoeq.models import load_checkpoint, save_checkpoint
from geoeq.simulate import GeoeqCalculator, load_sevennet

GOLDEN = Path(__file__).parents[1] / "golden" / "sevennet"


@pytest.fixture
def content() -> dict[str, Any]:
    """The content of a file with two modalities."""
    tensors = load_file(GOLDEN / "two_modalities.safetensors")
    config = json.loads((GOLDEN / "two_modalities.json").read_text())["hyperparameters"]
    config.pop("modality")
    config |= {"_type_map": {int(z): place for z, place in config["_type_map"].items()}, "optimizer": "adam"}
    parameters = {name[6:]: value for name, value in tensors.items() if name.startswith("param.")}
    return {"model_state_dict": parameters, "config": config, "epoch": 3}


def test_a_file_is_a_potential_for_simulations(content: dict[str, Any], tmp_path: Path) -> None:
    torch.save(content, tmp_path / "checkpoint.pth")
    expected = load_file(GOLDEN / "two_modalities.safetensors")
    model = load_sevennet(tmp_path / "checkpoint.pth", modality="b")
    first = expected["input.batch"] == 0
    atoms = Atoms(numbers=expected["input.z"][first].numpy(), positions=expected["input.pos"][first].numpy())
    atoms.calc = GeoeqCalculator(model)
    assert abs(atoms.get_potential_energy() - float(expected["output.energy"][0])) < 1e-10
    assert abs(torch.from_numpy(atoms.get_forces()) - expected["output.forces"][first]).max() < 1e-10

    save_checkpoint(model, tmp_path / "converted")
    again, _ = load_checkpoint(tmp_path / "converted")
    data = Batch.from_data_list([Data(z=expected["input.z"][first], pos=expected["input.pos"][first])])
    assert torch.equal(again(data)["energy"], model(data)["energy"])


def test_what_is_refused(content: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"checkpoint\.pth: .*several modalities; name one with modality="):
        load_sevennet(path)
    torch.save(content["model_state_dict"], path)
    with pytest.raises(CheckpointError, match=r"checkpoint\.pth: a checkpoint of SevenNet has 'config'"):
        load_sevennet(path)
    old = {name.replace("_", " "): value for name, value in content["model_state_dict"].items()}
    torch.save(content | {"model_state_dict": old}, path)
    with pytest.raises(CheckpointError, match=r"checkpoint\.pth: its parameters do not have the names.*22 May 2024"):
        load_sevennet(path)
    unstated = {name: value for name, value in content["config"].items() if name != "_normalize_sph"}
    torch.save(content | {"config": unstated | {"version": "0.9.1"}}, path)
    with pytest.raises(CheckpointError, match=r"_normalize_sph is False; the only supported value is True"):
        load_sevennet(path, "a")
    torch.save(content | {"config": unstated | {"version": "0.10.0"}}, path)
    load_sevennet(path, "a")
    content["config"].pop("version")
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="its configuration lacks 'version'"):
        load_sevennet(path, "a")
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(DataError, match=r"checkpoint\.pth"):
        load_sevennet(path, "a")
    torch.save(content | {"config": Path("x")}, path)
    with pytest.raises(DataError, match="pathlib"):
        load_sevennet(path, "a")


@pytest.mark.slow
def test_sevennet_0_has_its_authors_numbers() -> None:
    """Five structures, computed by its own calculator in float32. The weights are in the package sevenn."""
    found = importlib.util.find_spec("sevenn")
    if found is None or not found.submodule_search_locations:
        pytest.skip("the package sevenn, whose wheel has the weights, is not installed")
    folder = Path(found.submodule_search_locations[0]) / "pretrained_potentials" / "SevenNet_0__11Jul2024"
    case = load_file(Path(__file__).parent / "sevennet_0.safetensors")
    batch, numbers, positions = (case[f"input.{name}"] for name in ("batch", "z", "pos"))
    structures = [
        Data(z=numbers[batch == n], pos=positions[batch == n], cell=cell[None], pbc=torch.ones(1, 3, dtype=torch.bool))
        for n, cell in enumerate(case["input.cell"])
    ]
    outputs = load_sevennet(folder / "checkpoint_sevennet_0.pth")(Batch.from_data_list(structures))
    for name in ("energy", "forces", "stress"):
        expected = case[f"output.{name}"]
        assert float((outputs[name].detach() - expected).abs().max() / expected.abs().max()) < 2e-5, name
