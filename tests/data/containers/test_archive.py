"""Archives are read as a stream, and refused where they are broken or not to be trusted."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from geoeq.data.containers import archive
from geoeq.data.containers.archive import open_members
from geoeq.errors import DataError

FILES = {"a.txt": b"one\ntwo\n" * 500, "folder/b.txt": bytes(range(256)) * 40, "c.txt": b""}
KINDS = ["x.tar", "x.tar.gz", "x.tgz", "x.tar.bz2", "x.tar.xz", "x.zip"]


def pack(path: Path, files: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in files.items():
                file.writestr(name, content)
        return path
    mode = {".tar": "w", ".gz": "w:gz", ".tgz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}[path.suffix]
    with tarfile.open(path, mode) as file:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return path


def read(path: Path) -> dict[str, bytes]:
    return {name: content.read() for name, content in open_members(path)}


@pytest.mark.parametrize("kind", KINDS)
def test_members(tmp_path, kind):
    path = pack(tmp_path / kind, FILES)
    assert read(path) == FILES
    assert {name: b"".join(content) for name, content in open_members(path)} == FILES


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["../up.txt", "a/../../up.txt", "/etc/up.txt", "C:\\up.txt", "a\\..\\..\\up.txt"])
def test_names_that_lead_out(tmp_path, kind, name):
    path = pack(tmp_path / kind, {"good.txt": b"1", name: b"2"})
    with pytest.raises(DataError, match="leads out of the archive"):
        read(path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar(tmp_path, kind):
    path = tmp_path / "x.tar.gz"
    with tarfile.open(path, "w:gz") as file:
        member = tarfile.TarInfo("odd")
        member.type, member.linkname = kind, "/etc/passwd"
        file.addfile(member)
    with pytest.raises(DataError, match="'odd' is a link or a device"):
        read(path)


def test_a_link_in_a_zip(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as file:
        member = zipfile.ZipInfo("odd")
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(member, "/etc/passwd")
    with pytest.raises(DataError, match="'odd' is a link or a device"):
        read(path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.6, 0.9])
def test_a_truncated_archive(tmp_path, kind, keep):
    path = pack(tmp_path / kind, {f"{i}.bin": bytes((i * j * j) % 251 for j in range(4000)) for i in range(5)})
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size * (0.7 if kind == "x.tar" else 1))])
    with pytest.raises(DataError, match="is truncated or altered"):
        read(path)


@pytest.mark.parametrize("kind", ["x.tar.gz", "x.tar.bz2", "x.tar.xz", "x.zip"])
def test_a_flipped_byte(tmp_path, kind):
    path = pack(tmp_path / kind, {"a.bin": bytes((j * j) % 251 for j in range(40000))})
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match="is truncated or altered"):
        read(path)


@pytest.mark.parametrize("kind", ["x.tar.gz", "x.tar.bz2", "x.tar.xz", "x.zip"])
@pytest.mark.parametrize("by_line", [False, True])
def test_a_bomb(tmp_path, kind, by_line, monkeypatch):
    monkeypatch.setattr(archive, "_FREE_BYTES", 1 << 16)
    path = pack(tmp_path / kind, {"a.bin": bytes(1 << 20), "b.bin": bytes(1 << 21)})
    assert path.stat().st_size * 100 < 1 << 20
    with pytest.raises(DataError, match="Do not trust this file"):
        consume(path, by_line)


def consume(path: Path, by_line: bool) -> None:
    for _, content in open_members(path):
        if by_line:
            for _ in content:
                pass
        else:
            while content.read(1 << 14):
                pass


def test_not_an_archive(tmp_path):
    for kind in KINDS:
        path = tmp_path / kind
        path.write_bytes(b"<html>404</html>" * 100)
        with pytest.raises(DataError, match="is truncated or altered"):
            read(path)
