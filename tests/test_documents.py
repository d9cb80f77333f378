"""Settings in YAML and JSON: what is too large, too deep or no file at all is refused before it is built."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from geoeq.data import load_file, read_card
from geoeq.data.pickles import read_pickle
from geoeq.data.structures import read_structures
from geoeq.documents import parse_json, parse_yaml, read_json, read_yaml
from geoeq.errors import CheckpointError, GeoeqError, RecipeError
from geoeq.models import EGNN, NequIP, load_checkpoint, save_checkpoint
from geoeq.simulate import load_potential
from geoeq.training.parsing import read_recipe

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30)
)
MERGE = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 30))

#: No reader could finish any of these without a limit, so that a test that ends has found one.
REFUSED = {
    "alias bomb": (BOMB, "it has more than 100000 values, those that its aliases repeat included"),
    "merge bomb": (MERGE, "it has more than 100000 values"),
    "an alias of itself": ("a: &a [*a]\n", "it has an alias that refers to itself"),
    "nested lists": ("[" * 5000 + "]" * 5000, "it is nested more than 100 deep"),
    "nested mappings": ("".join(f"{' ' * i}a:\n" for i in range(1200)), "it is nested more than 100 deep"),
    "too large": ("a: " + "x" * 2_000_000, "more than 1048576 bytes"),
    "no date": ("a: 2001-02-30", "it has a value that is invalid in YAML: day is out of range"),
    "no bool": ("a: !!bool x", "it has a value that is invalid in YAML"),
    "an object": ("a: !!python/object/apply:os.system [true]", "this is not YAML: could not determine a constructor"),
    "two documents": ("a: 1\n---\nb: 2\n", "this is not YAML: expected a single document"),
    "a control character": ("a: \x00", "this is not YAML"),
    "a key twice": ("a: {b: 1, c: 2, b: 3}", "the key 'b' occurs twice"),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_yaml(text, message, tmp_path):
    for name, read in {"r.yaml": read_recipe, "card.yaml": read_card}.items():
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        with pytest.raises(GeoeqError, match=message) as caught:
            read(path)
        assert name in str(caught.value)
        assert len(str(caught.value)) < 500


def test_yaml_with_aliases_is_read():
    assert parse_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]", "x") == {
        "a": {"x": 1},
        "b": {"x": 1, "y": 2},
        "c": [{"x": 1}, {"x": 1}],
    }
    assert parse_yaml("", "x") is None
    assert parse_yaml("3", "x") == 3


@pytest.mark.parametrize(
    "content", [b"\xff\xfe" + "a: 1".encode("utf-16-le"), "a: Å".encode("latin-1"), b"\x89PNG\r\n"]
)
def test_files_that_are_not_utf_8(content, tmp_path):
    path = tmp_path / "r.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=r"r\.yaml: this is not a text file in UTF-8"):
        read_recipe(path)


def test_a_byte_order_mark_is_not_part_of_the_text(tmp_path):
    (tmp_path / "x.yaml").write_text("a: 1", encoding="utf-8-sig")
    assert read_yaml(tmp_path / "x.yaml") == {"a": 1}


@pytest.mark.parametrize("depth", [101, 500, 5000, 100_000])
@pytest.mark.parametrize("pair", ["[]", '{"a":}'])
def test_nested_json(depth, pair, tmp_path):
    text = pair[:-1] * depth + "1" + pair[-1] * depth
    with pytest.raises(GeoeqError, match=r"^x: it is nested more than 100 deep"):
        parse_json(text, "x")
    save_checkpoint(EGNN.example(), tmp_path)
    description = json.loads((tmp_path / "model.json").read_text()) | {"meta": "HERE"}
    (tmp_path / "model.json").write_text(json.dumps(description).replace('"HERE"', text))
    with pytest.raises(CheckpointError, match=r"model\.json: it is nested more than 100 deep"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[1,]", "9" * 5000, "{'a': 1}", b"\xff"])
def test_what_is_not_json(text):
    with pytest.raises(GeoeqError, match=r"^x is truncated or altered: it is not JSON"):
        parse_json(text, "x")


def test_json_at_the_limit_is_read():
    assert json.dumps(parse_json("[" * 100 + "]" * 100, "x")) == "[" * 100 + "]" * 100


READERS = {
    "structures": read_structures,
    "data": load_file,
    "card": read_card,
    "recipe": read_recipe,
    "pickle": read_pickle,
    "potential": load_potential,
    "json": read_json,
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("suffix", ["xyz", "yaml"])
def test_pipes_sockets_and_devices_are_not_opened(read, suffix, tmp_path, monkeypatch):
    """Opening a pipe that nobody writes blocks, and /dev/zero has no end: a test that ends did not open them."""
    monkeypatch.chdir(tmp_path)  # the name of a socket is at most 108 bytes long
    os.mkfifo(f"pipe.{suffix}")
    Path(f"link.{suffix}").symlink_to(f"pipe.{suffix}")
    Path(f"zero.{suffix}").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"socket.{suffix}")
        for name, kind in {
            "pipe": r"a pipe \(fifo\)",
            "link": "a pipe",
            "zero": "a device",
            "socket": "a socket",
        }.items():
            with pytest.raises(GeoeqError, match=rf"{name}\.{suffix} is {kind}"):
                read(Path(f"{name}.{suffix}"))


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_pipe_in_the_folder_of_a_checkpoint(name, tmp_path):
    save_checkpoint(EGNN.example(), tmp_path)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(CheckpointError, match=rf"{name} is a pipe \(fifo\)"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("path", ["..", ".", "...", "a..b", "geoeq.", ".geoeq", "a b.c", "geoeq:", "::", "-.x"])
def test_class_paths_that_are_none(path, tmp_path):
    (tmp_path / "r.yaml").write_text(f"dataset: qm7\ntarget: x\nmodel: {{class_path: '{path}'}}\n")
    with pytest.raises(RecipeError, match=r"r\.yaml: 'model.class_path' must be a dotted path"):
        read_recipe(tmp_path / "r.yaml")


@pytest.mark.parametrize("elements", ["x", "67", "[x]", "[0]", "[119]", "[1.5]", "[.inf]", "[true]", "3", "{1: 6}"])
def test_elements_that_are_none(elements, tmp_path):
    text = "dataset: qm7\ntarget: atomization_energy\nmodel:\n  class_path: geoeq.models.EGNN\n  init_args: {elements: "
    (tmp_path / "r.yaml").write_text(text + elements + "}\n")
    with pytest.raises(GeoeqError, match="elements"):
        EGNN([], elements=read_recipe(tmp_path / "r.yaml").model.init_args["elements"])
    save_checkpoint(EGNN.example(), tmp_path)
    description = json.loads((tmp_path / "model.json").read_text()) | {"elements": parse_yaml(elements, "x")}
    (tmp_path / "model.json").write_text(json.dumps(description))
    with pytest.raises(CheckpointError, match=r"model\.json: 'elements' must be a list of atomic numbers"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("path", ["geoeq.models", "geoeq.fields.FIELDS"])
def test_class_paths_of_what_is_not_called(path, tmp_path):
    (tmp_path / "r.yaml").write_text(f"dataset: qm7\ntarget: x\nmodel: {{class_path: {path}}}\n")
    with pytest.raises(RecipeError, match=r"r\.yaml: .* is a (module|dict), not a class or function"):
        read_recipe(tmp_path / "r.yaml")


@pytest.mark.parametrize("network", [EGNN, NequIP])
def test_a_checkpoint_that_announces_endless_layers(network, tmp_path):
    save_checkpoint(network.example(), tmp_path)
    description = json.loads((tmp_path / "model.json").read_text())
    description["model"]["init_args"]["layers"] = 999_999_999_999
    (tmp_path / "model.json").write_text(json.dumps(description))
    with pytest.raises(CheckpointError, match=r"model\.json: (it describes far more parameters than the \d+|.*Memory)"):
        load_checkpoint(tmp_path)
