"""Fetching from a server on this machine: whole, resumed, broken off, altered, missing."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import yaml

from geoeq.data import Card, Source, read_card
from geoeq.data.preparation.fetch import chosen_sources, fetch_file, fetch_sources, unverified
from geoeq.errors import DataError
from geoeq.resources import share

CONTENT = np.random.default_rng(0).bytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Behaviour:
    """What the server does, and what it was asked."""

    content: bytes = CONTENT
    ranges: bool = True
    tag: str = '"one"'
    stop_after: int | None = None
    length: str | None = "right"
    status: int = 200
    success: int | None = None
    kind: str = "application/octet-stream"
    asked: list[str | None] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[tuple[str, Behaviour]]:
    behaviour = Behaviour()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            behaviour.asked.append(self.headers.get("Range"))
            if behaviour.status != 200:
                self.send_error(behaviour.status)
                return
            start = 0
            wanted, unless = self.headers.get("Range"), self.headers.get("If-Range")
            if wanted and behaviour.ranges and unless in (None, behaviour.tag):
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
                if start >= len(behaviour.content):
                    self.send_error(416)
                    return
            body = behaviour.content[start:]
            self.send_response(behaviour.success or (206 if start else 200))
            self.send_header("Content-Type", behaviour.kind)
            if start:
                end = len(behaviour.content)
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{end}")
            if behaviour.tag:
                self.send_header("ETag", behaviour.tag)
            if behaviour.length is not None:
                self.send_header("Content-Length", str(len(body)) if behaviour.length == "right" else behaviour.length)
            self.end_headers()
            self.wfile.write(body[: behaviour.stop_after])

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}/data.bin", behaviour
        http.shutdown()
        thread.join()


def source(url: str, **changes: object) -> Source:
    return replace(Source(file="data.bin", url=url, sha256=SHA256, bytes=len(CONTENT)), **changes)


def leftovers(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_whole_file(tmp_path, server, capsys):
    url, behaviour = server
    path = tmp_path / "raw" / "data.bin"
    fetch_file(source(url), path)
    assert path.read_bytes() == CONTENT
    assert leftovers(path.parent) == {"data.bin"}
    assert behaviour.asked == [None]
    assert "data.bin" in capsys.readouterr().err
    fetch_file(source(url), path, progress=False)
    assert capsys.readouterr().err == ""


def break_off(path: Path, url: str, behaviour: Behaviour, **changes: object) -> None:
    behaviour.stop_after = 1_000_000
    with pytest.raises(
        DataError, match=r"data.bin could not be fetched .*1000000 of 3000000 bytes; try again to resume"
    ):
        fetch_file(source(url, **changes), path, progress=False)
    behaviour.stop_after = None
    assert not path.exists()
    assert (path.parent / "data.bin.part").stat().st_size == 1_000_000


@pytest.mark.parametrize("changes", [{}, {"sha256": None, "bytes": None}])
def test_a_broken_transfer_goes_on_where_it_stopped(tmp_path, server, changes):
    url, behaviour = server
    path = tmp_path / "data.bin"
    break_off(path, url, behaviour, **changes)
    fetch_file(source(url, **changes), path, progress=False)
    assert path.read_bytes() == CONTENT
    assert behaviour.asked == [None, "bytes=1000000-"]
    assert leftovers(tmp_path) == {"data.bin"}


def test_a_server_that_cannot_resume(tmp_path, server):
    url, behaviour = server
    path = tmp_path / "data.bin"
    break_off(path, url, behaviour)
    behaviour.ranges = False
    fetch_file(source(url), path, progress=False)
    assert path.read_bytes() == CONTENT


def test_a_file_that_changed_in_between_is_fetched_again(tmp_path, server):
    url, behaviour = server
    path = tmp_path / "data.bin"
    break_off(path, url, behaviour, sha256=None, bytes=None)
    behaviour.content, behaviour.tag = CONTENT[::-1], '"two"'
    fetch_file(source(url, sha256=None, bytes=None), path, progress=False)
    assert path.read_bytes() == CONTENT[::-1]


def test_without_tag_and_checksum_nothing_is_resumed(tmp_path, server):
    url, behaviour = server
    path = tmp_path / "data.bin"
    behaviour.tag = ""
    break_off(path, url, behaviour, sha256=None, bytes=None)
    fetch_file(source(url, sha256=None, bytes=None), path, progress=False)
    assert path.read_bytes() == CONTENT
    assert behaviour.asked == [None, None]


def test_a_part_that_is_longer_than_the_file(tmp_path, server):
    url, behaviour = server
    path = tmp_path / "data.bin"
    (tmp_path / "data.bin.part").write_bytes(CONTENT + b"more")
    fetch_file(source(url), path, progress=False)
    assert path.read_bytes() == CONTENT
    assert len(behaviour.asked) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha256": "0" * 64}, f"has the sha256 {SHA256} instead of {'0' * 64}"),
        ({"bytes": 5}, "announces 3000000 bytes instead of 5"),
    ],
)
def test_another_file_than_the_card_says(tmp_path, server, changes, message):
    url, _ = server
    path = tmp_path / "data.bin"
    with pytest.raises(DataError, match=message) as error:
        fetch_file(source(url, **changes), path, progress=False)
    assert f"download {url} and save it as {path}." in str(error.value)
    assert not path.exists()
    assert not (tmp_path / "data.bin.part").exists()


@pytest.mark.parametrize("status", [404, 403, 500])
def test_an_answer_that_is_an_error(tmp_path, server, status):
    url, behaviour = server
    behaviour.status = status
    path = tmp_path / "data.bin"
    with pytest.raises(DataError, match=rf"answered {status} .* To get it by hand, download {url}"):
        fetch_file(source(url), path, progress=False)
    assert leftovers(tmp_path) == set()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"success": 202, "content": b""}, "the server answered 202 Accepted"),
        ({"content": b"<html>Please wait</html>", "kind": "text/html; charset=utf-8"}, "with a web page"),
        ({"content": b""}, "with an empty file"),
    ],
)
def test_an_answer_that_is_not_the_file(tmp_path, server, changes, message):
    url, behaviour = server
    vars(behaviour).update(changes)
    with pytest.raises(DataError, match=f"{message}.*To get it by hand"):
        fetch_file(source(url, sha256=None, bytes=None), tmp_path / "data.bin", progress=False)
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("length", ["three", "-1", "1e3", "³"])
def test_a_size_that_is_not_a_number(tmp_path, server, length):
    url, behaviour = server
    behaviour.length = length
    with pytest.raises(DataError, match=r"announces a file of '.*' bytes, which is not a number.*by hand"):
        fetch_file(source(url, sha256=None, bytes=None), tmp_path / "data.bin", progress=False)
    assert not leftovers(tmp_path) - {"data.bin.part.etag"}


def test_a_server_that_does_not_stop_is_stopped(tmp_path, server):
    url, behaviour = server
    behaviour.length = None
    with pytest.raises(DataError, match="sends more than the 5 bytes of the file"):
        fetch_file(source(url, bytes=5), tmp_path / "data.bin", progress=False)
    assert leftovers(tmp_path) == {"data.bin.part.etag"}


def test_files_without_a_checksum_are_called_unverified():
    assert unverified([source("https://x"), source("https://x", sha256=None, md5="0"), Source("a", shipped=True)]) == []
    (note,) = unverified([source("https://x/a", sha256=None)])
    assert note == "The content of data.bin from https://x/a was not verified: the card has no checksum of it."


@pytest.mark.parametrize("file", ["../secret", "/etc/passwd", "sample/../../secret", "."])
@pytest.mark.parametrize("key", ["sample", "source"])
def test_files_outside_the_folder_of_the_card_are_refused(tmp_path, file, key):
    content = yaml.safe_load((share("datasets") / "qm7" / "card.yaml").read_text())
    if key == "sample":
        content["sample"] = {"files": [file]}
    else:
        content["sources"] = [{"file": file, "shipped": True}]
    path = tmp_path / "card.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(DataError, match="must name a file in the folder of the card"):
        read_card(path)


def test_a_refused_connection(tmp_path, server):
    url = "http://127.0.0.1:9/data.bin"
    path = tmp_path / "data.bin"
    with pytest.raises(
        DataError, match=rf"could not be fetched \(.*refused.*\). To get it .* {url} \(nobody .* as {path}"
    ):
        fetch_file(source(url, unverified=True), path, progress=False)


def test_other_addresses_are_refused(tmp_path):
    (tmp_path / "secret").write_text("x")
    with pytest.raises(DataError, match="must begin with https:// or http://"):
        fetch_file(source(f"file://{tmp_path}/secret"), tmp_path / "data.bin")


def card_of(*sources: Source) -> Card:
    return Card(
        name="mine",
        title="",
        reader="",
        licence="",
        citation="",
        targets={},
        splits={},
        default_split="",
        default_target="",
        sources=sources,
        folder="/nowhere",
    )


def test_the_format_that_is_already_there_is_used(tmp_path):
    one, two = Source("one", "https://x", format="a"), Source("two", "https://x", format="b")
    always = Source("always", "https://x")
    card = card_of(always, one, two)
    assert [found.file for found in chosen_sources(card, tmp_path)] == ["always", "one"]
    (tmp_path / "mine" / "raw").mkdir(parents=True)
    (tmp_path / "mine" / "raw" / "two").touch()
    assert [found.file for found in chosen_sources(card, tmp_path)] == ["always", "two"]


def test_a_file_saved_by_hand_is_verified_and_not_fetched(tmp_path):
    path = tmp_path / "mine" / "raw" / "data.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    card = card_of(source("http://127.0.0.1:9/data.bin"))
    assert fetch_sources(card, tmp_path) == {"data.bin": path}
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(DataError, match=r"has 2999999 bytes instead of 3000000. It was altered or truncated."):
        fetch_sources(card, tmp_path)
    assert path.exists(), "what a user placed is not deleted"


def test_a_shipped_file_that_is_missing(tmp_path):
    with pytest.raises(DataError, match=r"which is shipped with geoeq, is missing. Reinstall geoeq with pip"):
        fetch_sources(card_of(Source("gone", shipped=True)), tmp_path)
