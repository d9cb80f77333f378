"""The reader of OC20 and OC22: it lists the files of the sources and chooses how to read each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from geoeq.data.catalysts.entries import Entry, list_entries
from geoeq.data.catalysts.frames import Task, frames_of
from geoeq.data.catalysts.tables import count_keys, read_pickled, read_rows
from geoeq.data.catalysts.texts import read_text, read_trajectory
from geoeq.data.pickles import read_pickle
from geoeq.data.preparation.chunks import Frame, chunk_frames
from geoeq.data.records import Records, Shard, ShardedReader
from geoeq.errors import DataError

__all__ = ["OpenCatalystReader"]

_TEXTS, _TABLES, _PICKLES = (".extxyz", ".extxyz.xz", ".extxyz.gz"), (".lmdb", ".aselmdb"), (".pkl", ".pt")

#: Number of structures of an LMDB file in a shard.
_SHARD = 20_000


class OpenCatalystReader(ShardedReader):
    """Reader of OC20 and OC22 in any of their formats, which may be mixed.

    A source is a file, folder or archive of: extended xyz (``.extxyz``, ``.extxyz.xz``) with a text file of references
    beside it; trajectories of ASE (``.traj``); LMDB files of pickled Data of PyG, old and new (``.lmdb``), and of rows
    of ASE (``.aselmdb``); pickles of lists of Data, and files of ``torch.save`` (``.pkl``, ``.pt``). No code in a
    pickle is executed. Other files in a folder or archive, such as a README, are skipped.

    The columns of "s2ef" are ``forces`` and an energy: ``total_energy`` for text and trajectories, and also
    ``adsorption_energy`` for text with references; for other files the one specified by ``energy``. Those of "is2re"
    are ``relaxed_energy``, ``relaxed_positions``, and ``initial_energy`` if it is published. Inputs of each atom are
    ``tags`` (0 below the surface, 1 at the surface, 2 in the adsorbate) and ``fixed``. Identifiers of each structure
    are ``sid`` and ``fid``, the numbers of the system and of the step, or -1.

    Args:
        task: "s2ef" (energy and forces of a structure) or "is2re" (energy and positions after its relaxation).
        energy: kind of the energies in LMDB files and pickles: "adsorption" or "total".
        parts: part of the data set -> folder in the sources that contains it, such as ``is2re/all/train``, or the name
            of a source. Other files are left out. If None, each source is a part with its own name.
        references: name of a source that is a pickle with the total energy minus the adsorption energy of each system
            (``oc20_ref.pkl``). Columns of total energies are then added.

    Raises:
        ValueError: a setting is unknown.
    """

    version: ClassVar[int] = 1

    def __init__(
        self,
        task: str,
        energy: str | None = None,
        parts: dict[str, str] | None = None,
        references: str | None = None,
    ) -> None:
        if task not in ("s2ef", "is2re"):
            raise ValueError(f"the task must be 's2ef' or 'is2re', not {task!r}")
        if energy not in (None, "adsorption", "total"):
            raise ValueError(f"energy must be 'adsorption' or 'total', not {energy!r}")
        self.task = task
        self.energy = energy
        self.parts = parts
        self.references = references

    def shards(self, files: Mapping[str, Path]) -> Sequence[Shard]:
        """Return one shard for each text file or trajectory and several for each LMDB file, part by part."""
        sources = {name: path for name, path in files.items() if name != self.references}
        shards_of: dict[str, list[Shard]] = {part: [] for part in self.parts or sources}
        for name, path in sources.items():
            for index, entry in enumerate(list_entries(path)):
                part = self._part(name, entry)
                if part is not None and entry.name.endswith((*_TEXTS, *_TABLES, *_PICKLES, ".traj")):
                    shards_of[part] += _divided(name, index, entry, part)
        for part, shards in shards_of.items():
            if not shards:
                raise DataError(f"The part '{part}' has no file in {', '.join(map(str, sources.values()))}.")
        return [shard for shards in shards_of.values() for shard in shards]

    def _part(self, source: str, entry: Entry) -> str | None:
        if self.parts is None:
            return source
        where = f"/{source}/{entry.name}/"
        return next((part for part, folder in self.parts.items() if f"/{folder.strip('/')}/" in where), None)

    def read_shard(self, files: Mapping[str, Path], shard: Shard) -> Iterator[Records]:
        """Read the structures of one file, or of a range of keys of an LMDB file."""
        references = None if self.references is None else _references(files[self.references])
        yield from chunk_frames(
            self._frames(files[shard.file], shard, Task(self.task == "is2re", self.energy, references))
        )

    def _frames(self, path: Path, shard: Shard, task: Task) -> Iterator[Frame]:
        entries = list_entries(path)
        entry = entries[shard.entry]
        if entry.name.endswith(_TEXTS):
            stem = entry.name[: entry.name.rindex(".extxyz")]
            notes = next((other for other in entries if other.name in (f"{stem}.txt.xz", f"{stem}.txt")), None)
            return read_text(entry, notes, task)
        if entry.name.endswith(".traj"):
            return read_trajectory(entry, task)
        if entry.name.endswith(_PICKLES):
            if entry.path.name != Path(entry.name).name:
                raise DataError(f"{entry}: a pickle cannot be read within an archive; unpack the archive.")
            return frames_of(read_pickle(entry.path), str(entry), task)
        read = read_rows if entry.name.endswith(".aselmdb") else read_pickled
        return read(entry, shard.start, shard.stop or 0, task)


def _divided(source: str, index: int, entry: Entry, part: str) -> list[Shard]:
    if not entry.name.endswith(_TABLES):
        return [Shard(source, entry=index, part=part)]
    count = count_keys(entry)
    return [Shard(source, start, min(start + _SHARD, count), index, part) for start in range(0, count, _SHARD)]


@lru_cache(maxsize=1)
def _references(path: Path) -> dict[str, float]:
    references = read_pickle(path)
    if not isinstance(references, dict) or not all(isinstance(value, (int, float)) for value in references.values()):
        raise DataError(f"{path}: it must contain a dict of energies of systems.")
    return references
