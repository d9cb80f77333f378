"""Published files: fetched with resume and checked, or named with the place where to put them by hand."""

from __future__ import annotations

import os
import re
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from tqdm import tqdm  # type: ignore[import-untyped]

from geoeq.data.card import Card, Source
from geoeq.errors import DataError
from geoeq.files import file_digest
from geoeq.resources import is_shared

__all__ = ["chosen_sources", "fetch_file", "fetch_sources", "source_path"]

_CHUNK = 1 << 20
_TIMEOUT = 60.0


def source_path(card: Card, source: Source, root: Path) -> Path:
    """Where the file of ``source`` is, or belongs; of an archive that is not there, the folder of what was in it."""
    if source.shipped:
        return Path(card.folder) / source.file
    path = root / card.name / "raw" / source.file
    folder = path.with_name(re.sub(r"\.(zip|tar(\.\w+)?|tgz)$", "", source.file))
    return folder if folder != path and folder.is_dir() and not path.exists() else path


def chosen_sources(card: Card, root: Path) -> list[Source]:
    """The sources of the first format that is wholly there, or else of the first format; and those always needed."""
    formats = list(dict.fromkeys(source.format for source in card.sources if source.format is not None))
    for name in [*formats, *formats[:1]]:
        sources = [source for source in card.sources if source.format in (None, name)]
        if all(source_path(card, source, root).exists() for source in sources if source.format):
            return sources
    return [source for source in card.sources if source.format in (None, *formats[:1])]


def fetch_sources(card: Card, root: Path, progress: bool = True) -> dict[str, Path]:
    """The files of the card, name -> path; those that are not there are fetched, and all are checked.

    Args:
        card: the data set.
        root: the folder of all caches.
        progress: show a bar on the standard error stream.

    Raises:
        DataError: a file cannot be fetched, or is not the one of the card; the message says how to place it by hand.
    """
    paths = {}
    for source in chosen_sources(card, root):
        path = source_path(card, source, root)
        folder = Path(card.folder)
        if source.shipped and not path.exists() and folder.is_dir() and not is_shared(folder):
            raise DataError(f"The file {path} is missing, which its card says lies beside it.")
        if not path.exists():
            fetch_file(source, path, progress)
        if not path.is_dir():
            _check(source, path)
        paths[source.file] = path
    return paths


def fetch_file(source: Source, path: Path, progress: bool = True) -> None:
    """Fetch the file of ``source`` to ``path``. A part that is already there is continued if the server can.

    Raises:
        DataError: it cannot be fetched, or is not the one of the card.
    """
    if source.shipped or source.url is None:
        raise DataError(f"The file {path} is missing, which comes with geoeq. Reinstall geoeq with pip.")
    if not source.url.startswith(("https://", "http://")):
        raise DataError(f"The address {source.url} of {source.file} should begin with https:// or http://.")
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
    have = part.stat().st_size if part.exists() else 0
    validator = _validator(part)
    known = validator.read_text(encoding="utf-8") if validator.exists() else ""
    if not known and source.sha256 is None and source.md5 is None:
        have = 0  # nothing would tell whether the rest is of the same file
    request = urllib.request.Request(source.url or "", headers={"User-Agent": "geoeq"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        if known:
            request.add_header("If-Range", known)
    try:
        response: HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        part.unlink()  # there is no such rest: the part is not of this file
        return _fetch(source, part, progress)
    with response:
        _refuse_pages(response, source)
        resumed = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        start = have if resumed else 0
        tag = response.headers.get("ETag", "")
        validator.write_text("" if tag.startswith("W/") else tag, encoding="utf-8")
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        with (
            part.open("ab" if resumed else "wb") as file,
            tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=source.file, disable=not progress) as bar,
        ):
            while block := response.read(_CHUNK):
                file.write(block)
                bar.update(len(block))
    if total is not None and part.stat().st_size < total:
        raise ConnectionError(f"the connection ended after {part.stat().st_size} of {total} bytes; try again to go on")
    return None


def _refuse_pages(response: HTTPResponse, source: Source) -> None:
    """Raise ConnectionError at an answer that is not the file: please wait, log in, are you a robot."""
    kind = response.headers.get_content_type()
    if response.status not in (200, 206):
        raise ConnectionError(f"the server answered {response.status} {response.reason}, not with the file")
    if kind == "text/html" and not source.file.endswith((".html", ".htm")):
        raise ConnectionError("the server answered with a web page, not with the file")
    if response.headers.get("Content-Length") == "0":
        raise ConnectionError("the server answered with an empty file")


def _validator(part: Path) -> Path:
    return part.with_name(part.name + ".etag")


def _check(source: Source, path: Path) -> None:
    size = path.stat().st_size
    if source.bytes is not None and size != source.bytes:
        raise DataError(f"{path} has {size} bytes; {source.bytes} would be right. {_mend(source, path)}")
    for kind, expected in (("sha256", source.sha256), ("md5", source.md5)):
        if expected is not None and (found := file_digest(path, kind)) != expected:
            raise DataError(f"{path} has the {kind} {found}; {expected} would be right. {_mend(source, path)}")


def _mend(source: Source, path: Path) -> str:
    if source.shipped:
        return "It was altered or truncated. Reinstall geoeq with pip."
    final = path.with_name(path.name.removesuffix(".part"))
    return f"It was altered or truncated. Delete it and fetch it again. {_by_hand(source, final)}"


def _by_hand(source: Source, path: Path) -> str:
    doubt = " (nobody has yet checked this address)" if source.unverified else ""
    return f"To place it by hand, put the file from {source.url}{doubt} at {path}."
