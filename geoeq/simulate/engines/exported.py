"""A potential from a file that ``export_potential`` wrote: it is run without the code of its network."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

import geoeq
from geoeq.checks import check_inputs
from geoeq.errors import CheckpointError, InputError
from geoeq.fields import Field, field
from geoeq.graph import Graph
from geoeq.models import Model
from geoeq.simulate.engines.graph_inputs import DERIVATIVE, GraphInputs, graph_inputs, with_stress

__all__ = ["ENTRY", "FORMAT", "FORMAT_VERSION", "TOLERANCES", "ExportedPotential", "load_potential", "worst_error"]

FORMAT, FORMAT_VERSION = "geoeq potential", 1

#: The name of the description within a file.
ENTRY = "geoeq.json"

#: Largest difference to the model that is let through, as ``worst_error`` counts it.
TOLERANCES = {"float64": 1e-10, "float32": 1e-4}


class ExportedPotential(Model):
    """What ``load_potential`` gives: a Model for all engines of ``geoeq.simulate``, that cannot be trained.

    Args:
        run: from the tensors of ``GraphInputs`` to those of the outputs.
        description: what the file says of itself.

    Attributes:
        stress: whether a stress is given.
        compiled: whether it is machine code (AOTInductor), for the device on which it was made.
    """

    def __init__(self, run: Callable[..., Sequence[Tensor]], description: Mapping[str, Any]) -> None:
        nn.Module.__init__(self)
        self._run = run
        self.description = dict(description)
        self.names = [output["name"] for output in description["outputs"]]
        self.stress = DERIVATIVE in self.names and description["cutoff"] is not None
        self.compiled = bool(description["compiled"])
        dtype = getattr(torch, description["dtype"])
        # By its parameters a Model tells its dtype and device.
        self.none = nn.Parameter(torch.empty(0, dtype=dtype, device=description["device"]), requires_grad=False)

    @classmethod
    def example(cls) -> Self:
        """There is none without a file.

        Raises:
            InputError: always.
        """
        raise InputError("An exported potential comes from a file: load_potential('potential.pt2').")

    @property
    def title(self) -> str:
        """That of the network."""
        return str(self.description["title"])

    @property
    def heads(self) -> nn.ModuleList:  # type: ignore[override]
        """None: they are part of the graph."""
        return nn.ModuleList()

    @property
    def fields(self) -> dict[str, Field]:
        """Those of the network, and the stress."""
        names = [name for name in self.names if name != DERIVATIVE] + ["stress"] * self.stress
        return {name: field(name) for name in names}

    @property
    def cutoff(self) -> float | None:  # type: ignore[override]
        """That of the network, in Å."""
        cutoff: float | None = self.description["cutoff"]
        return cutoff

    @property
    def elements(self) -> tuple[int, ...] | None:  # type: ignore[override]
        """The atomic numbers that the network knows."""
        known = self.description["elements"]
        return None if known is None else tuple(known)

    @property
    def conservative(self) -> bool:
        """Whether forces are minus the derivative of the energy."""
        return bool(self.description["conservative"])

    def forward(self, data: Data) -> dict[str, Tensor]:
        """Outputs by name; they carry no derivatives.

        Raises:
            InputError: a structure cannot be what was meant.
        """
        check_inputs(data, elements=self.elements, cutoff=self.cutoff)
        with torch.no_grad():
            outputs = self._run(*graph_inputs(data, self.cutoff))
            named = with_stress(self.names, outputs, data)
        return named if self.stress else {name: value for name, value in named.items() if name != "stress"}

    def encode(self, data: Data, graph: Graph) -> Tensor:
        """There are no features outside the graph.

        Raises:
            InputError: always.
        """
        raise InputError("An exported potential has no features; call it, or take the model that it was made of.")


def load_potential(path: str | Path) -> ExportedPotential:
    """Read a file of ``export_potential``, and try it on the structures in it whose answer it knows.

    Such a file holds code, as a program does: load it from those you trust. (A checkpoint holds none.)

    Raises:
        CheckpointError: the file is missing, altered, of a newer geoeq or for another device, or it gives other
            numbers here than where it was made.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            compiled = any("/aotinductor/" in name for name in archive.namelist())
    except FileNotFoundError as error:
        raise CheckpointError(f"There is no file '{path}'.") from error
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"{path} is no exported potential, or is truncated: {error}.") from error
    read = _read_compiled if compiled else _read_program
    try:
        run, text = read(path)
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"{path} cannot be loaded: {reason}") from error
    potential = ExportedPotential(run, _checked(path, text) | {"compiled": compiled})
    test = potential.description["test"]
    error_found = worst_error(run, *_tensors(test, potential.none.device))
    if not error_found <= TOLERANCES[potential.description["dtype"]]:
        raise CheckpointError(
            f"{path} gives other numbers here than where it was made: they differ by {error_found:.1e}. Export it "
            f"again on this machine, with this PyTorch ({torch.__version__})."
        )
    return potential


def worst_error(run: Callable[..., Sequence[Tensor]], inputs: GraphInputs, expected: Sequence[Tensor]) -> float:
    """The largest difference of any output, relative to the largest value of that output (in its unit 0.001 at least).

    Infinite where shapes differ; NaN where a value is.
    """
    with torch.no_grad():
        found = run(*inputs)
    errors = []
    for value, right in zip(found, expected, strict=True):
        if value.shape != right.shape:
            return float("inf")
        if right.numel():
            errors.append(((value - right).abs().max() / right.abs().max().clamp(min=1e-3)).double())
    return float(torch.stack(errors).max())


def _read_program(path: Path) -> tuple[Callable[..., Sequence[Tensor]], str]:
    extra = {ENTRY: ""}
    program = torch.export.load(path, extra_files=extra)
    return program.module(), extra[ENTRY]


def _read_compiled(path: Path) -> tuple[Callable[..., Sequence[Tensor]], str]:
    run = torch._inductor.aoti_load_package(str(path))
    return run, run.get_metadata().get(ENTRY, "")


def _checked(path: Path, text: str) -> dict[str, Any]:
    description = json.loads(text or "{}")
    if description.get("format") != FORMAT:
        raise CheckpointError(f"{path} was not written by geoeq: it does not say what it takes and gives.")
    if description["version"] > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {description['version']}, written by geoeq {description['geoeq']}; this is "
            f"geoeq {geoeq.__version__}, which reads up to version {FORMAT_VERSION}. Install a newer geoeq."
        )
    if description["device"] != "cpu" and not torch.cuda.is_available():
        raise CheckpointError(f"{path} was made for {description['device']}, which is not here. Export it for the CPU.")
    return dict(description)


def _tensors(test: Mapping[str, Any], device: torch.device) -> tuple[GraphInputs, list[Tensor]]:
    """The structures whose answer is known, and the answer."""

    def tensor(entry: Mapping[str, Any]) -> Tensor:
        dtype = getattr(torch, entry["dtype"])
        return torch.tensor(entry["values"], dtype=dtype, device=device).reshape(entry["shape"])

    return GraphInputs(*map(tensor, test["inputs"])), [tensor(entry) for entry in test["outputs"]]
