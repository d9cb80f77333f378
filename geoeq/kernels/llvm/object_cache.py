"""Object code of compiled kernels on disk, authenticated: only what this user has compiled is ever loaded."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import hmac
import os
import secrets
import stat
import warnings
from pathlib import Path

from geoeq.files import atomic_write
from geoeq.resources import cache_root

__all__ = ["key_path", "load_object", "save_object"]

_SIZE = hashlib.sha256().digest_size


def key_path() -> Path:
    """Return the path of the secret key, which lies outside the cache: a copied or shared cache has no valid codes."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "geoeq" / "kernel_cache.key"


def load_object(description: str) -> bytes | None:
    """Return the object code saved for a description; None if it is missing, unreadable or not of this user."""
    key = _key()
    if key is None:
        return None
    try:
        data = _path(description).read_bytes()
    except OSError:
        return None
    code = data[_SIZE:]
    return code if hmac.compare_digest(data[:_SIZE], _signature(key, description, code)) else None


def save_object(description: str, code: bytes) -> None:
    """Save object code; if the cache cannot be written, every process compiles for itself."""
    key = _key()
    if key is not None:
        with contextlib.suppress(OSError), atomic_write(_path(description)) as temporary:
            temporary.write_bytes(_signature(key, description, code) + code)


def _path(description: str) -> Path:
    return cache_root() / "kernels" / f"{hashlib.sha256(description.encode()).hexdigest()[:32]}.o"


def _signature(key: bytes, description: str, code: bytes) -> bytes:
    """Return the signature of the code of one kernel; it does not fit the file of another kernel."""
    return hmac.digest(key, hashlib.sha256(description.encode()).digest() + code, "sha256")


@functools.cache
def _key() -> bytes | None:
    """Return the secret key of this user, which is made at the first use; None if there can be none."""
    try:
        path = key_path()
        if not path.exists():
            _make_key(path)
        return _read_key(path)
    except (OSError, RuntimeError) as error:  # RuntimeError: the user has no home folder
        warnings.warn(f"Compiled kernels are not cached, because their key cannot be used: {error}", stacklevel=2)
        return None


def _make_key(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}-{os.getpid()}-{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_SIZE))
        with contextlib.suppress(FileExistsError):  # another process has made one meanwhile
            os.link(temporary, path)
    finally:
        temporary.unlink()


def _read_key(path: Path) -> bytes:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise OSError(f"{path} must be a file of this user that nobody else can read or write; delete it")
        key = file.read(_SIZE + 1)
    if len(key) != _SIZE:
        raise OSError(f"{path} has another size than {_SIZE} bytes; delete it")
    return key
