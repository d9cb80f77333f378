"""The reader of OC20 and OC22: which files there are, and how each is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from geoeq.data.catalysts.entries import Entry, list_entries
from geoeq.data.catalysts.frames import Task, from_bag
from geoeq.data.catalysts.tables import count_keys, read_pickled, read_rows
from geoeq.data.catalysts.texts import read_text, read_trajectory
from geoeq.data.pickles import read_pickle
from geoeq.data.prepare.chunks import Frame, in_chunks
from geoeq.data.records import Records, Shard, ShardedReader
from geoeq.errors import DataError

__all__ = ["OpenCatalystReader"]

_TEXTS, _TABLES, _PICKLES = (".extxyz", ".extxyz.xz", ".extxyz.gz"), (".lmdb", ".aselmdb"), (".pkl", ".pt")

#: Structures of an LMDB file that are read by one process at once.
_SHARD = 20_000


class OpenCatalystReader(ShardedReader):
    """Reads OC20 and OC22 from any of the formats that they come in, also mixed.

    A source is a file, a folder or an archive, of: extended xyz (``.extxyz``, ``.extxyz.xz``) with a text file of the
    references beside it; trajectories of ASE (``.traj``); LMDB files of pickled Data of PyG, old and new (``.lmdb``),
    and of rows of ASE (``.aselmdb``); pickles of lists of Data, and files of ``torch.save`` (``.pkl``, ``.pt``).
    Nothing in a pickle is run. What else is in a folder or archive, such as a README, is passed over.

    The columns of "s2ef" are ``forces``, and of text and trajectories ``total_energy``; text with references has also
    ``adsorption_energy``, other files the one that ``energy`` tells. Those of "is2re" are ``relaxed_energy``,
    ``relaxed_positions``, and ``initial_energy`` where it is given. Inputs of each atom are ``tags`` (0 below the
    surface, 1 at the surface, 2 of the adsorbate) and ``fixed``; names of each structure are ``sid`` and ``fid``, the
    numbers of the system and of the step, or -1.

    Args:
        task: "s2ef" (energy and forces of a structure) or "is2re" (energy and positions after its relaxation).
        energy: what the energies of LMDB files and pickles are: "adsorption" or "total".
        parts: part of the data set -> the folder in the sources that holds it, such as ``is2re/all/train``, or the
            name of a source. Other files are left out. If not given, each source is a part, by its name.
        references: the name of a source: a pickle with the total energy less the adsorption energy of each system
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
            raise ValueError(f"the task is {task!r}; 's2ef' or 'is2re' would be right")
        if energy not in (None, "adsorption", "total"):
            raise ValueError(f"energy is {energy!r}; 'adsorption' or 'total' would be right")
        self.task = task
        self.energy = energy
        self.parts = parts
        self.references = references

    def shards(self, files: Mapping[str, Path]) -> Sequence[Shard]:
        """One for each text file or trajectory, several for each LMDB file, part by part."""
        sources = {name: path for name, path in files.items() if name != self.references}
        found: dict[str, list[Shard]] = {part: [] for part in self.parts or sources}
        for name, path in sources.items():
            for place, entry in enumerate(list_entries(path)):
                part = self._part(name, entry)
                if part is not None and entry.name.endswith((*_TEXTS, *_TABLES, *_PICKLES, ".traj")):
                    found[part] += _divided(name, place, entry, part)
        for part, shards in found.items():
            if not shards:
                raise DataError(f"There is no file of the part '{part}' in {', '.join(map(str, sources.values()))}.")
        return [shard for shards in found.values() for shard in shards]

    def _part(self, source: str, entry: Entry) -> str | None:
        if self.parts is None:
            return source
        where = f"/{source}/{entry.name}/"
        return next((part for part, folder in self.parts.items() if f"/{folder.strip('/')}/" in where), None)

    def read_shard(self, files: Mapping[str, Path], shard: Shard) -> Iterator[Records]:
        """The structures of one file, or of a range of keys of an LMDB file."""
        references = None if self.references is None else _references(files[self.references])
        yield from in_chunks(
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
            return from_bag(read_pickle(entry.path), str(entry), task)
        read = read_rows if entry.name.endswith(".aselmdb") else read_pickled
        return read(entry, shard.start, shard.stop or 0, task)


def _divided(source: str, place: int, entry: Entry, part: str) -> list[Shard]:
    if not entry.name.endswith(_TABLES):
        return [Shard(source, entry=place, part=part)]
    count = count_keys(entry)
    return [Shard(source, start, min(start + _SHARD, count), place, part) for start in range(0, count, _SHARD)]


@lru_cache(maxsize=1)
def _references(path: Path) -> dict[str, float]:
    found = read_pickle(path)
    if not isinstance(found, dict) or not all(isinstance(value, (int, float)) for value in found.values()):
        raise DataError(f"{path}: it holds no energies of systems.")
    return found
