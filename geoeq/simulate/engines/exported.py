"""Load a potential written by ``export_potential``: it runs without the code of its network."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

import geoeq
from geoeq.checks import check_inputs
from geoeq.documents import parse_json
from geoeq.errors import CheckpointError, InputError
from geoeq.fields import Field, field
from geoeq.files import check_regular
from geoeq.graph import Graph
from geoeq.models import Model
from geoeq.models.wrappers.forces import has_volume
from geoeq.simulate.engines.graph_inputs import DERIVATIVE, GraphInputs, graph_inputs
from geoeq.simulate.engines.verification import TOLERANCES, Run, worst_error

__all__ = ["ENTRY", "FORMAT", "FORMAT_VERSION", "ExportedPotential", "load_potential"]

FORMAT, FORMAT_VERSION = "geoeq potential", 1

#: The name of the description within a file.
ENTRY = "geoeq.json"

#: Errors of zipfile when a file is truncated or altered.
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, RuntimeError, ValueError)

#: An exported potential may unpack to this many bytes plus this many times its size; PyTorch does not compress it.
_FREE_BYTES, _RATIO = 1 << 26, 100

#: What the description must have, and its types.
_DESCRIPTION: Mapping[str, Any] = {
    "version": int,
    "geoeq": str,
    "title": str,
    "outputs": list,
    "cutoff": (float, int, type(None)),
    "elements": (list, type(None)),
    "dtype": str,
    "device": str,
    "conservative": bool,
    "test": dict,
}


class ExportedPotential(Model):
    """Model returned by ``load_potential``: it runs in all engines of ``geoeq.simulate`` and cannot be trained.

    Args:
        run: function from the tensors of ``GraphInputs`` to the output tensors.
        description: metadata of the file.

    Attributes:
        stress: whether a stress is computed.
        compiled: whether it is machine code (AOTInductor) for the device on which it was exported.
    """

    def __init__(self, run: Run, description: Mapping[str, Any]) -> None:
        nn.Module.__init__(self)
        self._run = run
        self.description = dict(description)
        self.names = [output["name"] for output in description["outputs"]]
        self.stress = DERIVATIVE in self.names and description["cutoff"] is not None
        self.compiled = bool(description["compiled"])
        dtype = getattr(torch, description["dtype"])
        # A Model states its dtype and device by its parameters.
        self.none = nn.Parameter(torch.empty(0, dtype=dtype, device=description["device"]), requires_grad=False)

    @classmethod
    def example(cls) -> Self:
        """Refuse: an exported potential exists only as a file.

        Raises:
            InputError: always.
        """
        raise InputError("An exported potential comes from a file: load_potential('potential.pt2').")

    @property
    def title(self) -> str:
        """Title of the network."""
        return str(self.description["title"])

    @property
    def heads(self) -> nn.ModuleList:  # type: ignore[override]
        """Empty: the heads are part of the graph."""
        return nn.ModuleList()

    @property
    def fields(self) -> dict[str, Field]:
        """Outputs of the network, and the stress."""
        names = [name for name in self.names if name != DERIVATIVE] + ["stress"] * self.stress
        return {name: field(name) for name in names}

    @property
    def cutoff(self) -> float | None:  # type: ignore[override]
        """Cutoff of the network, in Å."""
        cutoff: float | None = self.description["cutoff"]
        return cutoff

    @property
    def elements(self) -> tuple[int, ...] | None:  # type: ignore[override]
        """Atomic numbers that the network knows."""
        elements = self.description["elements"]
        return None if elements is None else tuple(elements)

    @property
    def conservative(self) -> bool:
        """Whether the forces are minus the derivative of the energy."""
        return bool(self.description["conservative"])

    def forward(self, data: Data) -> dict[str, Tensor]:
        """Compute the outputs by name; they carry no derivatives.

        Raises:
            InputError: a structure is invalid.
        """
        check_inputs(data, elements=self.elements, cutoff=self.cutoff)
        total_charge = data.get("total_charge")
        if "charges" in self.names and total_charge is not None and bool((total_charge != 0).any()):
            raise InputError("This potential was exported for neutral structures; use the checkpoint for charged ones.")
        with torch.no_grad():
            outputs = self._run(*graph_inputs(data, self.cutoff))
            named = _with_stress(self.names, outputs, data)
        return named if self.stress else {name: value for name, value in named.items() if name != "stress"}

    def encode(self, data: Data, graph: Graph) -> Tensor:
        """Refuse: features exist only inside the graph.

        Raises:
            InputError: always.
        """
        raise InputError("An exported potential has no features: call it, or use the model that was exported.")


def load_potential(path: str | Path) -> ExportedPotential:
    """Load a file written by ``export_potential``, and test it on the reference structures stored in it.

    The file contains code, as a program does: load only files from sources you trust. (A checkpoint contains none.)

    Raises:
        CheckpointError: the file is missing, altered, from a newer geoeq or for another device, or its outputs differ
            from those on the machine that exported it.
    """
    path = Path(path)
    check_regular(path, CheckpointError)
    try:
        with zipfile.ZipFile(path) as archive:
            compiled = any("/aotinductor/" in name for name in archive.namelist())
            _check_content(archive, path)
    except FileNotFoundError as error:
        raise CheckpointError(f"There is no file '{path}'.") from error
    except _ZIP_ERRORS as error:
        raise CheckpointError(
            f"{path} is not an exported potential, or is truncated or altered: {error!s:.200}."
        ) from error
    read = _read_compiled if compiled else _read_program
    try:
        run, text = read(path)
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"{path} cannot be loaded: {reason}") from error
    description = _checked(path, text) | {"compiled": compiled}
    try:
        potential = ExportedPotential(run, description)
        difference = worst_error(run, *_tensors(description["test"], potential.none.device))
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is altered: its description does not fit its graph ({error!r:.200}).") from error
    if not difference <= TOLERANCES[potential.description["dtype"]]:
        raise CheckpointError(
            f"{path} gives other numbers here than on the machine that exported it: they differ by {difference:.1e}. "
            f"Export it again on this machine, with this PyTorch ({torch.__version__})."
        )
    return potential


def _check_content(archive: zipfile.ZipFile, path: Path) -> None:
    """Compare all checksums, because the loader of PyTorch does not: it runs altered graphs."""
    size = sum(member.file_size for member in archive.infolist())
    if size > _FREE_BYTES + _RATIO * path.stat().st_size:
        raise CheckpointError(f"{path} unpacks to {size} bytes, more than {_RATIO} times its size. Do not trust it.")
    broken = archive.testzip()
    if broken is not None:
        raise zipfile.BadZipFile(f"the checksum of '{broken}' differs")


def _with_stress(names: Sequence[str], outputs: Sequence[Tensor], data: Data) -> dict[str, Tensor]:
    """Return outputs by name, with a stress as ``geoeq.models.Forces`` computes it if all structures have a volume."""
    named = dict(zip(names, outputs, strict=True))
    derivative = named.pop(DERIVATIVE, None)
    if derivative is not None and bool(has_volume(data).all()):
        volume = torch.linalg.det(data.cell.reshape(-1, 3, 3)).abs()
        named["stress"] = derivative / volume[:, None, None]
    return named


def _read_program(path: Path) -> tuple[Run, str]:
    extra = {ENTRY: ""}
    program = torch.export.load(path, extra_files=extra)
    return program.module(), extra[ENTRY]


def _read_compiled(path: Path) -> tuple[Run, str]:
    run = torch._inductor.aoti_load_package(str(path))
    return run, run.get_metadata().get(ENTRY, "")


def _checked(path: Path, text: str) -> dict[str, Any]:
    description = parse_json(text or "{}", str(path), CheckpointError)
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise CheckpointError(f"{path} was not written by geoeq: it has no description of its inputs and outputs.")
    for key, kind in _DESCRIPTION.items():
        if not isinstance(description.get(key), kind):
            raise CheckpointError(f"{path} is altered: its description has no valid '{key}'.")
    if description["version"] > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {description['version']}, written by geoeq {description['geoeq']}; this is "
            f"geoeq {geoeq.__version__}, which reads up to version {FORMAT_VERSION}. Install a newer geoeq."
        )
    if description["device"] != "cpu" and not torch.cuda.is_available():
        raise CheckpointError(f"{path} needs {description['device']}, which is not available. Export it for the CPU.")
    if not all(isinstance(number, int) for number in description["elements"] or ()):
        raise CheckpointError(f"{path} is altered: its elements are not atomic numbers.")
    if description["dtype"] not in TOLERANCES:
        raise CheckpointError(f"{path} is altered: its dtype is {description['dtype']!r:.40}.")
    return description


def _tensors(test: Mapping[str, Any], device: torch.device) -> tuple[GraphInputs, list[Tensor]]:
    """Return the reference structures and their outputs."""

    def tensor(entry: Mapping[str, Any]) -> Tensor:
        dtype = getattr(torch, entry["dtype"])
        return torch.tensor(entry["values"], dtype=dtype, device=device).reshape(entry["shape"])

    return GraphInputs(*map(tensor, test["inputs"])), [tensor(entry) for entry in test["outputs"]]
