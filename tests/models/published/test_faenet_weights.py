"""FAENet from the authors' parameters: every published option, against its formulas written out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import linear, silu
from torch_geometric.data import Data

from geoeq.errors import CheckpointError, UnknownElementError
from geoeq.models import FAENet, Model, from_config
from geoeq.parity import shipped_cases

GOLDEN = Path(__file__).parents[2] / "golden" / "faenet"
CASES = {path.stem: path for path in (*shipped_cases("faenet"), *GOLDEN.glob("*.safetensors"))}


def case(name="updown_base"):
    """Parameters, inputs, outputs and hyperparameters of the authors' network."""
    path = CASES[name]
    tensors = load_file(path)
    parts = [
        {k.partition(".")[2]: v for k, v in tensors.items() if k.startswith(p)} for p in ("param", "input", "output")
    ]
    return *parts, json.loads(path.with_suffix(".json").read_text())["hyperparameters"]


def published(parameters, inputs, given):
    """Energy [G, 1] and features of the last layer [N, C], written out for the published options."""

    def apply(name, x):
        return linear(x, parameters[f"{name}.weight"], parameters[f"{name}.bias"])

    def total(x, index, count):
        return x.new_zeros(count, x.shape[1]).index_add(0, index, x)

    (sender, receiver), batch, z = inputs["edge_index"], inputs["batch"], inputs["z"]
    vectors = inputs["pos"][sender] - inputs["pos"][receiver]
    centers = torch.linspace(0, given["cutoff"], given["num_gaussians"], dtype=torch.float64)
    gaussians = torch.exp(-((vectors.norm(dim=1, keepdim=True) - centers) ** 2) / (2 * centers[1] ** 2))
    edges = silu(torch.cat([apply("embed_block.lin_e1", vectors), apply("embed_block.lin_e12", gaussians)], 1))
    table = {key.split(".")[1]: value for key, value in parameters.items() if key.startswith("embed_block.")}
    atoms = [table["emb"][z]]
    if given["tag_hidden_channels"]:
        atoms.append(table["tag_embedding"][inputs["tags"]])
    if given["phys_embeds"]:
        rows = parameters["embed_block.phys_emb.properties"][z]
        atoms.append(apply("embed_block.phys_lin", rows) if given["phys_hidden_channels"] else rows)
    if given["pg_hidden_channels"]:
        for name in ("period", "group"):
            place = parameters[f"embed_block.phys_emb.{name}"][z]
            atoms.append(parameters[f"embed_block.{name}_embedding.weight"][place])
    x = silu(apply("embed_block.lin", torch.cat(atoms, 1)))
    if given["second_layer_MLP"]:
        x, edges = silu(apply("embed_block.lin_2", x)), silu(apply("embed_block.lin_e2", edges))
    every, scaled = [x], "updown" in given["mp_type"]
    for k in range(given["num_interactions"]):
        block = f"interaction_blocks.{k}"
        filters = edges
        if given["mp_type"].endswith("base"):
            filters = torch.cat([edges, x[sender], x[receiver]], 1)
        local = given["mp_type"] == "updown_local_env"
        if given["mp_type"] != "simple":
            filters = apply(f"{block}.lin_geom", filters)
            filters = filters if local else silu(filters)
        values = silu(apply(f"{block}.lin_down", x)) if scaled else x
        m = total(values[sender] * filters, receiver, len(z))
        if given["graph_norm"]:
            scale, bias, share = (parameters[f"{block}.graph_norm.{n}"] for n in ("weight", "bias", "mean_scale"))
            m = m - share * m.mean(0)
            m = silu(scale * m / (m.square().mean(0) + 1e-5).sqrt() + bias)
        m = torch.cat([m, total(edges, receiver, len(z))], 1) if local else m
        m = apply(f"{block}.{'lin_up' if scaled else 'lin_h'}", m)
        m = m if local else silu(m)
        x = x + (silu(apply(f"{block}.other_mlp", m)) if given["complex_mp"] else m)
        every.append(x)
    if given["skip_co"] == "concat_atom":
        x = silu(apply("mlp_skip_co", torch.cat(every, 1)))
    energies = []
    for layer in every if given["skip_co"] in ("concat", "add") else [x]:
        value = apply("output_block.lin2", silu(apply("output_block.lin1", layer)))
        if given["energy_head"]:
            final = given["energy_head"] == "weighted-av-final-embeds"
            value = value * (apply("output_block.w_lin", layer) if final else apply("w_lin", every[0]))
        energies.append(total(value, batch, 2))
    together = torch.cat(energies, 1)
    return (apply("mlp_skip_co", together) if given["skip_co"] == "concat" else together.sum(1, keepdim=True)), x


def parameters_for(given):
    """Random parameters under the authors' names, of their shapes."""
    generator = torch.Generator().manual_seed(1)
    width, filters = given["hidden_channels"], given["num_filters"]
    layers, scaled = given["num_interactions"], "updown" in given["mp_type"]
    wide = filters if scaled else width
    properties = 5 if given["phys_embeds"] else 0
    tags, places = given["tag_hidden_channels"], given["pg_hidden_channels"]
    left = width - tags - 2 * places - (given["phys_hidden_channels"] or properties)
    maps = {
        "lin_e1": (filters // 2, 3),
        "lin_e12": (filters - filters // 2, given["num_gaussians"]),
        "lin": (width, width),
    }
    if given["second_layer_MLP"]:
        maps |= {"lin_2": (width, width), "lin_e2": (filters, filters)}
    if given["phys_hidden_channels"]:
        maps["phys_lin"] = (given["phys_hidden_channels"], properties)
    maps = {f"embed_block.{name}": shape for name, shape in maps.items()}
    for k in range(layers):
        block = f"interaction_blocks.{k}"
        if given["mp_type"] != "simple":
            ends = 2 * width if given["mp_type"].endswith("base") else 0
            maps[f"{block}.lin_geom"] = (wide, filters + ends)
        if scaled:
            maps[f"{block}.lin_down"] = (filters, width)
        maps[f"{block}.{'lin_up' if scaled else 'lin_h'}"] = (width, 2 * wide if "local" in given["mp_type"] else wide)
        if given["complex_mp"]:
            maps[f"{block}.other_mlp"] = (width, width)
    maps |= {"output_block.lin1": (width // 2, width), "output_block.lin2": (1, width // 2)}
    if given["energy_head"]:
        maps["output_block.w_lin" if "final" in given["energy_head"] else "w_lin"] = (1, width)
    if given["skip_co"] == "concat":
        maps["mlp_skip_co"] = (1, layers + 1)
    elif given["skip_co"] == "concat_atom":
        maps["mlp_skip_co"] = (width, (layers + 1) * width)
    shapes = {f"{name}.weight": shape for name, shape in maps.items()}
    shapes |= {f"{name}.bias": shape[:1] for name, shape in maps.items()}
    shapes["embed_block.emb.weight"] = (85, left)
    if tags:
        shapes["embed_block.tag_embedding.weight"] = (3, tags)
    if places:
        shapes |= {
            "embed_block.period_embedding.weight": (7, places),
            "embed_block.group_embedding.weight": (19, places),
        }
    if properties:
        shapes["embed_block.phys_emb.properties"] = (86, properties)
    if given["graph_norm"]:
        kinds = ("weight", "bias", "mean_scale")
        shapes |= {f"interaction_blocks.{k}.graph_norm.{kind}": (wide,) for k in range(layers) for kind in kinds}
    made = {name: 0.4 * torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}
    constants = {name: value for name, value in case()[0].items() if "phys_emb" in name and places}
    return made | constants


OPTIONS = [
    {},
    {"mp_type": "updownscale"},
    {"mp_type": "base", "num_filters": 10},
    {"mp_type": "updown_local_env", "num_filters": 11},
    {"mp_type": "updown_local_env", "graph_norm": False, "complex_mp": True},
    {"mp_type": "simple"},
    {"mp_type": "simple", "graph_norm": False, "second_layer_MLP": False},
    {"complex_mp": True, "num_filters": 11},
    {"skip_co": "add"},
    {"skip_co": None},
    {"skip_co": False},
    {"skip_co": "concat_atom"},
    {"energy_head": "weighted-av-final-embeds"},
    {"energy_head": "weighted-av-initial-embeds"},
    {"energy_head": "weighted-av-initial-embeds", "skip_co": "add"},
    {"energy_head": "weighted-av-final-embeds", "skip_co": "", "mp_type": "base", "complex_mp": True},
    {"tag_hidden_channels": 3},
    {"pg_hidden_channels": 0},
    {"phys_embeds": True},
    {"phys_embeds": True, "phys_hidden_channels": 3, "tag_hidden_channels": 2},
    {"num_interactions": 4, "hidden_channels": 21, "second_layer_MLP": False},
]


@pytest.mark.parametrize("changes", OPTIONS, ids=lambda changes: "-".join(map(str, changes.values())) or "as given")
def test_options_are_the_published_formulas(changes):
    _, inputs, _, hyperparameters = case()
    given = hyperparameters | {"regress_forces": None} | changes
    parameters = parameters_for(given)
    energy, features = published(parameters, inputs, given)
    model = FAENet.from_reference(parameters, **given)
    found = model(Data(**inputs))
    torch.testing.assert_close(found["energy"], energy.squeeze(1), rtol=1e-11, atol=1e-12)
    assert set(found) == {"energy"}
    assert torch.isfinite(features).all()


def test_the_written_formulas_are_those_of_the_authors():
    for name in ("updown_base", "no_graph_norm"):
        parameters, inputs, outputs, given = case(name)
        energy, _ = published(parameters, inputs, given)
        torch.testing.assert_close(energy, outputs["energy"], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("norm", ["batch1d", "layer", None])
@pytest.mark.parametrize("kind", ["simple", "mlp", "res", "res_updown"])
def test_decoders_are_the_published_ones(kind, norm):
    """Built as torch's own modules under the published names, on the features of the last layer."""
    parameters, inputs, _, given = case()
    given |= {"force_decoder_type": kind, "force_decoder_model_config": {kind: {"hidden_channels": 6, "norm": norm}}}
    norms = {"batch1d": torch.nn.BatchNorm1d, "layer": torch.nn.LayerNorm, None: lambda width: torch.nn.Identity()}

    def block(width, out, *last):
        middle = [] if kind == "simple" else [norms[norm](out)]
        return torch.nn.Sequential(torch.nn.Linear(width, out), *middle, torch.nn.SiLU(), *last)

    shapes = {"simple": [], "mlp": [], "res": [(16, 16), (16, 16)], "res_updown": [(16, 6), (6, 6), (6, 16)]}[kind]
    torch.manual_seed(0)
    blocks = [*(block(*shape) for shape in shapes), block(16, 6, torch.nn.Linear(6, 3))]
    names = [f"mlp_{k + 1}" for k in range(len(blocks))] if shapes else ["model"]
    decoder = torch.nn.ModuleDict(dict(zip(names, blocks, strict=True))).double().eval()
    for value in decoder.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5)
    parameters = {key: value for key, value in parameters.items() if not key.startswith("decoder.")}
    parameters |= {f"decoder.{key}": value.clone() for key, value in decoder.state_dict().items()}
    model = FAENet.from_reference(parameters, **given).eval()
    _, x = published(parameters, inputs, given)
    trunk = x
    for part in blocks[:-1]:
        trunk = part(trunk)
    expected = blocks[-1](trunk + x if shapes else x)
    torch.testing.assert_close(model(Data(**inputs))["forces"], expected, rtol=1e-11, atol=1e-12)


def test_reference_network_is_made_again_from_its_config():
    parameters, inputs, outputs, hyperparameters = case()
    model = FAENet.from_reference(parameters, **hyperparameters).eval()
    again = from_config(json.loads(json.dumps(model.config())), Model).double().eval()
    again.load_state_dict(model.state_dict())
    found = again(Data(**inputs))
    torch.testing.assert_close(found["forces"], outputs["forces"], rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(found["energy"], outputs["energy"].squeeze(1), rtol=1e-10, atol=1e-13)


def test_elements_without_a_row_in_the_published_tables_are_refused():
    parameters, inputs, _, hyperparameters = case()
    model = FAENet.from_reference(parameters, **hyperparameters)
    assert set(range(1, 85)) - set(model.elements) == set(range(58, 72))
    for number in (60, 85):
        inputs["z"][0] = number
        with pytest.raises(UnknownElementError, match=rf"z = {number}\) is not known"):
            model(Data(**inputs))


def test_what_is_not_of_this_network_is_refused():
    parameters, _, _, given = case()
    wrong = [
        ({"mp_type": "sfarinet"}, r"No mp_type is called 'sfarinet'"),
        ({"act": "relu"}, r"No act is called 'relu'"),
        ({"out_dim": 2}, r"No out_dim is called '2'"),
        ({"hiden_channels": 3}, r"Did you mean 'hidden_channels'"),
        ({"energy_head": "weighted-av-initial-embeds", "skip_co": None}, r"needs skip_co 'concat' or 'add'"),
        ({"force_decoder_model_config": {"res": {}}}, r"needs 'mlp' with its hidden_channels"),
        ({"phys_embeds": True}, r"lacks: embed_block\.phys_emb\.properties"),
        ({"num_interactions": 3}, r"'mlp_skip_co\.weight' has shape \[1, 3\]; this model needs \[1, 4\]"),
        ({"complex_mp": True}, r"lacks: interaction_blocks\.0\.other_mlp\.weight"),
        ({"num_interactions": 1}, r"'interaction_blocks\.1\..*has no place in this FAENet"),
        ({"energy_head": "weighted-av-final-embeds"}, r"lacks: output_block\.w_lin\.weight"),
        ({"num_gaussians": 13}, r"'embed_block\.lin_e12\.weight' has shape \[8, 12\]; this model needs \[8, 13\]"),
        ({"num_filters": 18}, r"has shape .* this model needs"),
    ]
    for changes, message in wrong:
        with pytest.raises(CheckpointError, match=message):
            FAENet.from_reference(parameters, **(given | changes))
    del parameters["decoder.model.1.running_mean"]
    with pytest.raises(CheckpointError, match=r"lacks: decoder\.model\.1\.running_mean"):
        FAENet.from_reference(parameters, **given)
