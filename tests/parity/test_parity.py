"""The published networks' own numbers, from their own weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from geoeq import parity
from geoeq.cli.main import main
from geoeq.errors import CheckpointError, DataError
from geoeq.models import EGNN, PONITA
from geoeq.parity import SHIPPED, cases, recovery

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = sorted([*parity.shipped_cases(), *GOLDEN.glob("*/*.safetensors")])


def named(path):
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.parametrize("path", CASES, ids=named)
def test_our_numbers_are_the_authors(path):
    result = parity.check_case(path)
    assert set(result.errors) == {key.removeprefix("output.") for key in load_file(path) if key.startswith("output.")}
    assert result.passed, result.errors


@pytest.mark.parametrize("place", ["missing", "twice"])
def test_another_set_of_frames_fails(tmp_path, place):
    """One frame of eight is another one, or is there twice in place of its mirror image; their order is free."""
    source = SHIPPED / "frames" / "pca_e3.safetensors"
    shutil.copy(source.with_suffix(".json"), tmp_path)
    case = tmp_path / source.name
    tensors = load_file(source)
    for name in ("rotations3", "frames3"):
        tensors[f"output.{name}"] = tensors[f"output.{name}"].flip(0)
    save_file(tensors, case)
    assert parity.check_case(case, "frames").passed
    for name in ("rotations3", "frames3"):  # both, so that each fits the other
        output = tensors[f"output.{name}"]
        output[5] = output[4] if place == "twice" else output[5].roll(1, dims=-1)
    save_file(tensors, case)
    assert not parity.check_case(case, "frames").passed


@pytest.fixture
def case(tmp_path):
    """A case that may be altered."""
    for suffix in (".safetensors", ".json"):
        shutil.copy(GOLDEN / "egnn" / f"attention_edges{suffix}", tmp_path)
    return tmp_path / "attention_edges.safetensors"


def alter(case, change):
    tensors = {key: value.clone() for key, value in load_file(case).items()}
    change(tensors)
    save_file(tensors, case)


def test_one_wrong_number_fails_and_says_which(case):
    def spoil(tensors):
        tensors["output.h"][3, 1] *= 1 + 1e-8

    alter(case, spoil)
    lines, passed = parity.run([case], network="egnn")
    assert not passed
    assert next(line for line in lines if "FAILED" in line).split()[1] == "h"


@pytest.mark.parametrize("form", [dict, list])
def test_an_output_may_differ_by_as_much_as_the_published_code_does_from_itself(case, form):
    def spoil(tensors):
        tensors["output.h"][3, 1] *= 1 + 1e-8

    alter(case, spoil)
    description = json.loads(case.with_suffix(".json").read_text())
    names = list(description["outputs"])
    spread = {name: 1e-7 if name == "h" else 0.0 for name in names}
    description["frame_spread"] = spread if form is dict else list(spread.values())
    case.with_suffix(".json").write_text(json.dumps(description))
    result = parity.check_case(case, "egnn")
    assert result.limits == {name: max(1e-10, 2 * spread[name]) for name in result.errors}
    assert result.passed
    assert "more than the tolerance: h" in result.remark
    description["frame_spread"] = dict.fromkeys(names, 1e-9)
    case.with_suffix(".json").write_text(json.dumps(description))
    assert not parity.check_case(case, "egnn").passed


def test_a_wrong_network_finds_no_input_positions(tmp_path, monkeypatch):
    """Recovery is no way out: with other weights no input gives the output."""
    monkeypatch.setattr(recovery, "STARTS", 3)
    source = GOLDEN / "egnn_velocity" / "nbody.safetensors"
    shutil.copy(source.with_suffix(".json"), tmp_path)
    case = tmp_path / source.name
    shutil.copy(source, case)
    alter(case, lambda tensors: tensors["param.gcl_1.coord_mlp.2.weight"].mul_(1.01))
    assert not parity.check_case(case, "egnn_velocity").passed


def test_recovered_positions_are_the_true_ones():
    """Of a case that we make ourselves, and of which we overwrite the input as the published code does."""
    source = GOLDEN / "egnn_velocity" / "nbody.safetensors"
    tensors = load_file(source)
    hyperparameters = json.loads(source.with_suffix(".json").read_text())["hyperparameters"]
    model = EGNN.from_reference({k[6:]: v for k, v in tensors.items() if k.startswith("param.")}, **hyperparameters)
    model.requires_grad_(False)
    data = parity.NETWORKS["egnn_velocity"].data({k[6:]: v for k, v in tensors.items() if k.startswith("input.")})
    data.pos = torch.randn(20, 3, dtype=torch.float64)
    squares = (data.pos[data.edge_index[0]] - data.pos[data.edge_index[1]]).square().sum(-1)
    data.edge_attr[:, 1] = squares
    output, true = model(data)["positions"], data.pos
    data.pos = output.clone()
    found = recovery.recover_positions(lambda graph: model(graph)["positions"], data, squares, output)
    torch.testing.assert_close(found, true, rtol=0, atol=1e-8)


def test_input_positions_are_recovered_only_where_they_contradict():
    assert "recovered" in parity.check_case(GOLDEN / "egnn_velocity" / "nbody.safetensors").remark
    assert not parity.check_case(GOLDEN / "egnn" / "plain.safetensors").remark


def test_a_case_with_its_true_input_needs_no_recovery(tmp_path):
    source = SHIPPED / "egnn_velocity" / "nbody_normdiff.safetensors"
    shutil.copy(source.with_suffix(".json"), tmp_path)
    tensors = load_file(source)
    hyperparameters = json.loads(source.with_suffix(".json").read_text())["hyperparameters"]
    model = EGNN.from_reference({k[6:]: v for k, v in tensors.items() if k.startswith("param.")}, **hyperparameters)
    known = parity.NETWORKS["egnn_velocity"]
    data = known.data({k[6:]: v for k, v in tensors.items() if k.startswith("input.")})
    data.edge_attr[:, 1] = (data.pos[data.edge_index[0]] - data.pos[data.edge_index[1]]).square().sum(-1)
    with torch.no_grad():
        tensors["output.pos"] = model(data)["positions"]
    tensors["input.edge_attr"] = data.edge_attr
    save_file(tensors, tmp_path / source.name)
    result = parity.check_case(tmp_path / source.name, "egnn_velocity")
    assert result.passed
    assert not result.remark


def test_the_folder_names_the_network_or_the_user_does(case):
    with pytest.raises(DataError, match=r"No network is called.*--network"):
        parity.check_case(case)
    assert parity.check_case(case, "egnn").passed


def test_every_network_has_a_shipped_case():
    assert {path.parent.name for path in parity.shipped_cases()} == set(parity.NETWORKS)
    assert parity.shipped_cases("egnn") == [SHIPPED / "egnn" / "normalize_tanh.safetensors"]
    with pytest.raises(DataError, match="Did you mean 'egnn'"):
        parity.run(["egn"])


def test_a_name_runs_the_shipped_cases_of_a_network(capsys):
    assert main(["parity", "frames"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 1
    assert all(line.startswith("frames/pca_e3 ") for line in lines[1:])


def test_no_name_runs_all_shipped_cases(monkeypatch):
    checked = []

    def check(path, network):
        checked.append(path)
        return parity.CaseResult(path, {}, {})

    monkeypatch.setattr(cases, "check_case", check)
    assert parity.run([])[1]
    assert checked == parity.shipped_cases()


def test_broken_cases_name_the_file(case):
    with pytest.raises(DataError, match=r"nowhere.safetensors is missing"):
        parity.check_case(case.with_name("nowhere.safetensors"))
    description = case.with_suffix(".json")
    text = description.read_text()
    description.write_text("{}")
    with pytest.raises(DataError, match="'hyperparameters'"):
        parity.check_case(case, "egnn")
    description.write_text(text)
    case.write_bytes(case.read_bytes()[:1000])
    with pytest.raises(DataError, match="not a whole safetensors file"):
        parity.check_case(case, "egnn")


def test_from_reference_says_what_does_not_fit(case):
    parameters = {k[6:]: v for k, v in load_file(case).items() if k.startswith("param.")}
    given = json.loads(case.with_suffix(".json").read_text())["hyperparameters"]
    with pytest.raises(CheckpointError, match="Did you mean 'hidden_nf'"):
        EGNN.from_reference(parameters, **given, hiden_nf=3)
    with pytest.raises(CheckpointError, match="needs the hyperparameter 'n_layers'"):
        EGNN.from_reference(parameters, **{k: v for k, v in given.items() if k != "n_layers"})
    with pytest.raises(CheckpointError, match=r"'gcl_1\.att_mlp\.0\..*has no place"):
        EGNN.from_reference(parameters, **(given | {"n_layers": 1, "attention": True}))
    with pytest.raises(CheckpointError, match=r"has shape \[16, 36\]"):
        EGNN.from_reference(parameters, **(given | {"in_edge_nf": 1}))
    del parameters["gcl_0.node_mlp.2.bias"]
    with pytest.raises(CheckpointError, match=r"lacks: gcl_0\.node_mlp\.2\.bias"):
        EGNN.from_reference(parameters, **given)


@pytest.mark.slow
def test_a_wrong_network_finds_no_orientations(tmp_path, monkeypatch):
    monkeypatch.setattr(recovery, "BEST_ROTATIONS", 3)
    source = GOLDEN / "ponita" / "ori8.safetensors"
    shutil.copy(source.with_suffix(".json"), tmp_path)
    case = tmp_path / source.name
    shutil.copy(source, case)
    alter(case, lambda tensors: tensors["param.interaction_layers.1.conv.kernel.weight"][0].mul_(1.01))
    assert not parity.check_case(case, "ponita").passed


def test_orientations_are_recovered_only_where_outputs_say_more():
    points = torch.eye(3, dtype=torch.float64)
    with pytest.raises(DataError, match="6 outputs do not determine 3 orientations"):
        recovery.recover_orientations(lambda x: {"y": x[:2]}, points, {"y": torch.ones(2, 3).double()})


def test_a_case_with_its_orientations_needs_no_recovery(tmp_path):
    """Of a case that we make ourselves, with a grid of our own, from which nothing is recovered."""
    source = GOLDEN / "ponita" / "ori8.safetensors"
    tensors, hyperparameters = load_file(source), json.loads(source.with_suffix(".json").read_text())["hyperparameters"]
    parameters = {k[6:]: v for k, v in tensors.items() if k.startswith("param.")}
    model = PONITA.from_reference(parameters, **hyperparameters)
    known = parity.NETWORKS["ponita"]
    data = known.data({k[6:]: v for k, v in tensors.items() if k.startswith("input.")})
    outputs = {f"output.{key}": value.detach().contiguous() for key, value in known.outputs_of(model, data).items()}
    shutil.copy(source.with_suffix(".json"), tmp_path)
    save_file(tensors | outputs | {"param.ori_grid": model.points}, tmp_path / source.name)
    result = parity.check_case(tmp_path / source.name, "ponita")
    assert result.passed
    assert not result.remark
