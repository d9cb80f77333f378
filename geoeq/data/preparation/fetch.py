"""Fetch published files, with resume and verification, or tell where to put them by hand."""

from __future__ import annotations

import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterable
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from tqdm import tqdm  # type: ignore[import-untyped]

from geoeq.data.card import Card, Source
from geoeq.errors import DataError
from geoeq.files import file_digest
from geoeq.resources import is_shared

__all__ = ["chosen_sources", "fetch_file", "fetch_sources", "source_path", "unverified"]

_CHUNK = 1 << 20
_TIMEOUT = 60.0


def source_path(card: Card, source: Source, root: Path) -> Path:
    """Return the path of the file of ``source``; for a missing archive, the folder with its content if that exists."""
    if source.shipped:
        return Path(card.folder) / source.file
    path = root / card.name / "raw" / source.file
    folder = path.with_name(re.sub(r"\.(zip|tar(\.\w+)?|tgz)$", "", source.file))
    return folder if folder != path and folder.is_dir() and not path.exists() else path


def unverified(sources: Iterable[Source]) -> list[str]:
    """Return a sentence for each file whose content was not verified, because the card has no checksum of it."""
    return [
        f"The content of {source.file} from {source.url} was not verified: the card has no checksum of it."
        for source in sources
        if source.url is not None and source.sha256 is None and source.md5 is None
    ]


def chosen_sources(card: Card, root: Path) -> list[Source]:
    """Return the sources without a format, and those of the first format that is complete, or else of the first one."""
    formats = list(dict.fromkeys(source.format for source in card.sources if source.format is not None))
    for name in [*formats, *formats[:1]]:
        sources = [source for source in card.sources if source.format in (None, name)]
        if all(source_path(card, source, root).exists() for source in sources if source.format):
            return sources
    return [source for source in card.sources if source.format in (None, *formats[:1])]


def fetch_sources(card: Card, root: Path, progress: bool = True) -> dict[str, Path]:
    """Fetch the missing files of the card, verify all of them, and return name -> path.

    Args:
        card: card of the data set.
        root: folder of all caches.
        progress: whether to show a progress bar on the standard error stream.

    Raises:
        DataError: a file cannot be fetched, or differs from the one in the card; the message says how to get it by
            hand.
    """
    paths = {}
    for source in chosen_sources(card, root):
        path = source_path(card, source, root)
        folder = Path(card.folder)
        if source.shipped and not path.exists() and folder.is_dir() and not is_shared(folder):
            raise DataError(f"The file {path} is missing; according to its card it should be beside the card.")
        if not path.exists():
            fetch_file(source, path, progress)
        if not path.is_dir():
            _check(source, path)
        paths[source.file] = path
    return paths


def fetch_file(source: Source, path: Path, progress: bool = True) -> None:
    """Fetch the file of ``source`` to ``path``, resuming an interrupted download if the server supports it.

    Raises:
        DataError: the file cannot be fetched, or differs from the one in the card.
    """
    if source.shipped or source.url is None:
        raise DataError(f"The file {path}, which is shipped with geoeq, is missing. Reinstall geoeq with pip.")
    if not source.url.startswith(("https://", "http://")):
        raise DataError(f"The address {source.url} of {source.file} must begin with https:// or http://.")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        _fetch(source, part, progress)
    except urllib.error.HTTPError as error:
        raise DataError(f"{source.url} answered {error.code} {error.reason}. {_by_hand(source, path)}") from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise DataError(f"{source.file} could not be fetched ({reason}). {_by_hand(source, path)}") from error
    try:
        _check(source, part)
    except DataError:
        part.unlink()
        raise
    _validator(part).unlink(missing_ok=True)
    os.replace(part, path)


def _fetch(source: Source, part: Path, progress: bool) -> None:
    """Append what is missing to ``part``, which is complete when this returns."""
    offset = part.stat().st_size if part.exists() else 0
    validator = _validator(part)
    known = validator.read_text(encoding="utf-8") if validator.exists() else ""
    if not known and source.sha256 is None and source.md5 is None:
        offset = 0  # without a checksum the rest could be of another file
    request = urllib.request.Request(source.url or "", headers={"User-Agent": "geoeq"})
    if offset:
        request.add_header("Range", f"bytes={offset}-")
        if known:
            request.add_header("If-Range", known)
    try:
        response: HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not offset:
            raise
        part.unlink()  # the server has no such range: the part is of another file
        return _fetch(source, part, progress)
    with response:
        _refuse_pages(response, source)
        resumed = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
        start = offset if resumed else 0
        tag = response.headers.get("ETag", "")
        validator.write_text("" if tag.startswith("W/") else tag, encoding="utf-8")
        total = _announced(response, source, start)
        limit = source.bytes if source.bytes is not None else total
        with (
            part.open("ab" if resumed else "wb") as file,
            tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=source.file, disable=not progress) as bar,
        ):
            while block := response.read(_CHUNK):
                if limit is not None and file.tell() + len(block) > limit:
                    part.unlink()
                    raise ConnectionError(f"the server sends more than the {limit} bytes of the file")
                file.write(block)
                bar.update(len(block))
    if total is not None and part.stat().st_size < total:
        raise ConnectionError(f"the connection ended after {part.stat().st_size} of {total} bytes; try again to resume")
    return None


def _announced(response: HTTPResponse, source: Source, start: int) -> int | None:
    """Return the size of the whole file according to the server; None if it does not announce one.

    Raises:
        ConnectionError: the size is not a number, or not that in the card.
    """
    length = response.headers.get("Content-Length")
    if length is None:
        return None
    if not (length.isascii() and length.isdigit()):
        raise ConnectionError(f"the server announces a file of {length!r} bytes, which is not a number")
    total = start + int(length)
    if source.bytes is not None and total > source.bytes:
        raise ConnectionError(f"the server announces {total} bytes instead of {source.bytes}")
    return total


def _refuse_pages(response: HTTPResponse, source: Source) -> None:
    """Raise ConnectionError if the answer is not the file, but for example a login page."""
    kind = response.headers.get_content_type()
    if response.status not in (200, 206):
        raise ConnectionError(f"the server answered {response.status} {response.reason} instead of sending the file")
    if kind == "text/html" and not source.file.endswith((".html", ".htm")):
        raise ConnectionError("the server answered with a web page instead of the file")
    if response.headers.get("Content-Length") == "0":
        raise ConnectionError("the server answered with an empty file")


def _validator(part: Path) -> Path:
    return part.with_name(part.name + ".etag")


def _check(source: Source, path: Path) -> None:
    size = path.stat().st_size
    if source.bytes is not None and size != source.bytes:
        raise DataError(f"{path} has {size} bytes instead of {source.bytes}. {_remedy(source, path)}")
    for kind, expected in (("sha256", source.sha256), ("md5", source.md5)):
        if expected is not None and (actual := file_digest(path, kind)) != expected:
            raise DataError(f"{path} has the {kind} {actual} instead of {expected}. {_remedy(source, path)}")


def _remedy(source: Source, path: Path) -> str:
    if source.shipped:
        return "It was altered or truncated. Reinstall geoeq with pip."
    final = path.with_name(path.name.removesuffix(".part"))
    return f"It was altered or truncated. Delete it and fetch it again. {_by_hand(source, final)}"


def _by_hand(source: Source, path: Path) -> str:
    doubt = " (nobody has yet checked this address)" if source.unverified else ""
    return f"To get it by hand, download {source.url}{doubt} and save it as {path}."
