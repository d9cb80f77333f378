"""The cache of compiled kernels loads only what this user has compiled."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from geoeq.kernels.llvm import compiler, object_cache
from geoeq.kernels.llvm.kernel import Kernel
from geoeq.kernels.llvm.object_cache import key_path, load_object, save_object
from geoeq.kernels.triton.compiler import unavailable as triton_unavailable

CODE = b"some object code" * 100


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache, and a user without a key."""
    monkeypatch.setenv("GEOEQ_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    object_cache._key.cache_clear()
    yield tmp_path / "cache" / "kernels"
    object_cache._key.cache_clear()


def test_what_was_saved_is_loaded(folders: Path) -> None:
    assert load_object("one") is None
    save_object("one", CODE)
    object_cache._key.cache_clear()  # as in another process
    assert load_object("one") == CODE
    assert load_object("two") is None
    assert key_path().stat().st_mode & 0o777 == 0o600
    assert [path.name for path in key_path().parent.iterdir()] == [key_path().name]


def test_other_contents_are_not_loaded(folders: Path) -> None:
    save_object("one", CODE)
    save_object("two", CODE[::-1])
    one, two = folders / object_cache._path("one").name, folders / object_cache._path("two").name
    one.write_bytes(two.read_bytes())  # signed, but for another kernel
    assert load_object("one") is None
    one.write_bytes(hashlib.sha256(CODE).digest() + CODE)  # everybody can compute a checksum
    assert load_object("one") is None
    for data in (b"", CODE, two.read_bytes()[:-1]):
        two.write_bytes(data)
        assert load_object("two") is None


def test_the_cache_of_another_user_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_object("one", CODE)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "another"))
    object_cache._key.cache_clear()
    assert load_object("one") is None


@pytest.mark.parametrize("harm", [lambda key: key.chmod(0o644), lambda key: key.write_bytes(b""), None])
def test_a_key_that_others_may_know_is_not_used(harm, folders: Path) -> None:
    save_object("one", CODE)
    if harm is None:  # a link to a file of somebody else's choice
        key_path().rename(key_path().with_name("elsewhere"))
        key_path().symlink_to("elsewhere")
    else:
        harm(key_path())
    object_cache._key.cache_clear()
    with pytest.warns(UserWarning, match="not cached"):
        assert load_object("one") is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_object("two", CODE)
    assert len(list(folders.iterdir())) == 1


def test_triton_is_not_used_with_a_cache_that_others_can_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.version.cuda", "13.0")
    for path, name in ((tmp_path, "TRITON_CACHE_DIR"), (tmp_path / ".triton" / "cache", "TRITON_HOME")):
        monkeypatch.setenv(name, str(tmp_path))
        assert triton_unavailable.__wrapped__() is None
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o777)
        assert "chmod go-w" in triton_unavailable.__wrapped__()
        path.chmod(0o755)
        assert triton_unavailable.__wrapped__() is None
        monkeypatch.delenv(name)


def test_garbage_with_a_checksum_is_compiled_anew(folders: Path) -> None:
    if compiler.unavailable():
        pytest.skip("needs llvmlite")
    text = "define void @nothing(i64 %a, i64 %b, i64 %c) { ret void }"
    kernel = Kernel(name="nothing", text=text, pointers=0)
    compiler.compiled.__wrapped__(kernel)(0, 0, 0)
    (file,) = folders.iterdir()
    good = file.read_bytes()
    file.write_bytes(hashlib.sha256(CODE).digest() + CODE)
    compiler.address.cache_clear()
    compiler.compiled.__wrapped__(kernel)(0, 0, 0)
    assert file.read_bytes() == good
