"""A trained potential as a file that is run without its network: by torch.export, and compiled by AOTInductor."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from ase import Atoms
from torch import Tensor
from torch_geometric.data import Data

import geoeq
from geoeq.errors import InputError
from geoeq.fields import field
from geoeq.files import atomic_write
from geoeq.models import Model
from geoeq.models.checkpoint import load_checkpoint
from geoeq.models.wrappers.forces import stretch
from geoeq.pointers import graph_pointers
from geoeq.simulate.engines.export_check import structures_to_compare
from geoeq.simulate.engines.exported import ENTRY, FORMAT, FORMAT_VERSION, TOLERANCES, worst_error
from geoeq.simulate.engines.graph_inputs import DERIVATIVE, GraphInputs, graph_inputs
from geoeq.simulate.engines.tracing import example_inputs, output_names, trace
from geoeq.simulate.potential import as_potential, energies_within

__all__ = ["Export", "export_potential"]

_Run = Callable[..., Sequence[Tensor]]


@dataclass(frozen=True)
class Export:
    """What ``export_potential`` has written.

    Attributes:
        program: an ExportedProgram: any device of PyTorch that it was made for, with Python.
        compiled: a package of AOTInductor: machine code for this kind of machine, also without Python. None if there is
            none.
        note: why there is none.
        error: the largest difference to the model that was found, as ``geoeq.simulate.engines.exported.worst_error``
        counts.
    """

    program: Path
    compiled: Path | None
    note: str | None
    error: float


def export_potential(
    model: str | Path | Model,
    path: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    compiled: bool | None = None,
    structures: Sequence[Atoms] = (),
    trust: bool = False,
) -> Export:
    """Write a potential as ``path`` and, compiled, beside it (``water.pt2`` and ``water-compiled.pt2``).

    The graph takes the tensors of ``geoeq.simulate.engines.graph_inputs.GraphInputs``, of any sizes, and gives
    energies, forces
    and the derivative by strain, which are computed in it. It has the operators of PyTorch alone: the kernels of geoeq
    are not in it. Before a file is written it is compared with the model for many sizes, open and periodic; a small
    case with its answer goes with it, for ``load_potential``.

    Args:
        model: a run of ``geoeq train``, a checkpoint, or a Model.
        path: of the program, with the suffix .pt2.
        device: for which it is made.
        dtype: of the model; None leaves it. Positions are float64 in any case.
        compiled: write the compiled one; None where there is a C++ compiler. It takes minutes.
        structures: to compare, besides random ones of the elements of the model.
        trust: import and run classes that are not part of geoeq, where the checkpoint names any.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        InputError: the path has another suffix; the model needs more than elements, positions and cells; no graph of it
            holds for all sizes; or what it gives differs from the model: nothing is then written. There is no compiler,
            and ``compiled`` is True.
    """
    path = Path(path)
    if path.suffix != ".pt2":
        raise InputError(f"'{path}': an exported potential has the suffix .pt2.")
    reason = "it was not asked for" if compiled is False else _lacking()
    if compiled and reason is not None:
        raise InputError(f"'{path}' cannot be compiled: {reason}.")
    given = model if isinstance(model, Model) else load_checkpoint(model, trust=trust)[0]
    potential = as_potential(given, device, dtype)
    cases = [_answered(potential, data) for data in structures_to_compare(potential, structures)]
    program = trace(potential, example_inputs(potential))
    error = _verify(program.module(), cases, potential)
    description = _description(potential, given, cases[-1])
    with atomic_write(path) as temporary:
        torch.export.save(program, temporary, extra_files={ENTRY: json.dumps(description)})
    if reason is not None:
        return Export(path, None, reason, error)
    package = path.with_name(f"{path.stem}-compiled.pt2")
    with atomic_write(package) as temporary:
        settings = {"aot_inductor.metadata": {ENTRY: json.dumps(description)}}
        torch._inductor.aoti_compile_and_package(program, package_path=str(temporary), inductor_configs=settings)
        error = max(error, _verify(torch._inductor.aoti_load_package(str(temporary)), cases, potential))
    return Export(path, package, None, error)


def _lacking() -> str | None:
    """Why nothing can be compiled here, or None."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        return f"there is no C++ compiler here ({compiler}; CXX names another)"
    return None


def _answered(potential: Model, data: Data) -> tuple[GraphInputs, list[Tensor]]:
    """The tensors of structures, and what the model gives for them."""
    inputs = graph_inputs(data, potential.cutoff)
    try:
        with torch.no_grad():
            outputs = potential(data)
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(
            f"{potential.title} needs more than elements, positions and a cell ({error}): it cannot be exported."
        ) from error
    energies = energies_within(potential)
    if energies is not None:
        outputs[DERIVATIVE] = _derivative(energies, data)
    return inputs, [outputs[name] for name in output_names(potential)]


def _derivative(energies: Model, data: Data) -> Tensor:
    """Of the energy by strain, [G, 3, 3] eV, whether or not there is a volume."""
    moved = copy.copy(data)
    count = len(graph_pointers(data)) - 1
    strain = data.pos.new_zeros(count, 3, 3, requires_grad=True)
    stretch(moved, (strain + strain.mT) / 2)
    with torch.enable_grad():
        energy = energies(moved)["energy"].sum()
        found: Tensor = torch.autograd.grad(energy, strain, materialize_grads=True)[0]
    return found.detach()


def _verify(run: _Run, cases: Sequence[tuple[GraphInputs, list[Tensor]]], potential: Model) -> float:
    limit = TOLERANCES[str(next(potential.parameters()).dtype).removeprefix("torch.")]
    worst = 0.0
    for inputs, expected in cases:
        error = worst_error(run, inputs, expected)
        if not error <= limit:
            counts = inputs.batch.bincount().tolist()
            raise InputError(
                f"{potential.title} cannot be exported: for structures of {counts} atoms the graph differs from the "
                f"model by {error:.1e}, and {limit:.0e} is allowed."
            )
        worst = max(worst, error)
    return worst


def _description(potential: Model, given: Model, test: tuple[GraphInputs, list[Tensor]]) -> dict[str, Any]:
    parameter = next(potential.parameters())
    tensors = {name: value.detach().cpu().contiguous() for name, value in given.state_dict().items()}
    inputs, outputs = test
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "geoeq": geoeq.__version__,
        "torch": torch.__version__,
        "title": potential.title,
        "dtype": str(parameter.dtype).removeprefix("torch."),
        "device": parameter.device.type,
        "cutoff": potential.cutoff,
        "elements": None if potential.elements is None else list(potential.elements),
        "conservative": potential.conservative,
        "sha256": hashlib.sha256(safetensors.torch.save(tensors)).hexdigest(),
        "inputs": list(GraphInputs._fields),
        "outputs": [
            {"name": name, "unit": "eV" if name == DERIVATIVE else field(name).unit} for name in output_names(potential)
        ],
        "test": {"inputs": [_plain(tensor) for tensor in inputs], "outputs": [_plain(tensor) for tensor in outputs]},
    }


def _plain(tensor: Tensor) -> dict[str, Any]:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return {"dtype": dtype, "shape": list(tensor.shape), "values": tensor.flatten().tolist()}
