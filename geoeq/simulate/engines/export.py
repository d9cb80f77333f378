"""Export a trained potential with torch.export, and compile it with AOTInductor: it runs without its network."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ase import Atoms
from torch import Tensor
from torch_geometric.data import Data

import geoeq
from geoeq.derivatives import derivatives, differentiable, gradients_enabled
from geoeq.errors import InputError
from geoeq.fields import field
from geoeq.files import atomic_write
from geoeq.models import Model
from geoeq.models.checkpoint import load_checkpoint, weights_sha256
from geoeq.models.wrappers.forces import stretch
from geoeq.pointers import graph_pointers
from geoeq.simulate.engines.exported import ENTRY, FORMAT, FORMAT_VERSION
from geoeq.simulate.engines.graph_inputs import DERIVATIVE, GraphInputs, graph_inputs
from geoeq.simulate.engines.tracing import example_inputs, output_names, trace
from geoeq.simulate.engines.verification import Run, check_errors, structures_to_compare, worst_error
from geoeq.simulate.potential import as_potential, energies_within
from geoeq.trust import Trust

__all__ = ["Export", "export_potential"]


@dataclass(frozen=True)
class Export:
    """Files written by ``export_potential``.

    Attributes:
        program: an ExportedProgram for any PyTorch device it was exported for, run from Python.
        compiled: an AOTInductor package: machine code for this kind of machine, usable without Python; None if it was
            not compiled.
        note: reason why it was not compiled.
        error: largest difference from the model, as ``geoeq.simulate.engines.verification.worst_error`` measures it.
    """

    program: Path
    compiled: Path | None
    note: str | None
    error: float


@torch.inference_mode(False)  # tensors of inference mode could not be used in derivatives
def export_potential(
    model: str | Path | Model,
    path: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    compiled: bool | None = None,
    structures: Sequence[Atoms] = (),
    trust: Trust = False,
) -> Export:
    """Write a potential to ``path`` and its compiled form beside it (``water.pt2`` and ``water-compiled.pt2``).

    The graph takes the tensors of ``geoeq.simulate.engines.graph_inputs.GraphInputs``, of any sizes, and returns
    energies, forces and the derivative by strain. It contains only PyTorch operators, no kernels of geoeq. Before a
    file is written, it is compared with the model for many sizes, open and periodic; a small reference case is stored
    in it for ``load_potential``.

    Args:
        model: folder of a ``geoeq train`` run, a checkpoint, name of a fetched published potential, or a Model.
        path: file to write, with the suffix .pt2.
        device: device on which the potential will run.
        dtype: dtype of the model; None leaves it unchanged. Positions are float64 in any case.
        compiled: whether to compile, which takes minutes; None compiles if there is a C++ compiler.
        structures: structures for the comparison, besides random ones of the elements of the model.
        trust: modules outside geoeq whose classes the checkpoint may name, as for ``load_checkpoint``.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        InputError: the path has another suffix; the model needs more than elements, positions and cells; no graph of it
            is valid for all sizes; or its outputs differ from the model: nothing is then written. There is no compiler,
            and ``compiled`` is True.
    """
    path = Path(path)
    if path.suffix != ".pt2":
        raise InputError(f"'{path}': an exported potential must have the suffix .pt2.")
    reason = "it was not requested" if compiled is False else _missing_compiler()
    if compiled and reason is not None:
        raise InputError(f"'{path}' cannot be compiled: {reason}.")
    source = model if isinstance(model, Model) else load_checkpoint(model, trust=trust)[0]
    potential = as_potential(source, device, dtype)
    cases = [_reference_case(potential, data) for data in structures_to_compare(potential, structures)]
    program = trace(potential, example_inputs(potential))
    error = _verify(program.module(), cases, potential)
    description = _description(potential, source, cases[-1])
    content = io.BytesIO()  # on a full disk, torch's own writer ends the process
    torch.export.save(program, content, extra_files={ENTRY: json.dumps(description)})
    with atomic_write(path) as temporary:
        temporary.write_bytes(content.getbuffer())
    if reason is not None:
        return Export(path, None, reason, error)
    package = path.with_name(f"{path.stem}-compiled.pt2")
    with atomic_write(package) as temporary:
        settings = {"aot_inductor.metadata": {ENTRY: json.dumps(description)}}
        torch._inductor.aoti_compile_and_package(program, package_path=str(temporary), inductor_configs=settings)
        error = max(error, _verify(torch._inductor.aoti_load_package(str(temporary)), cases, potential))
    return Export(path, package, None, error)


def _missing_compiler() -> str | None:
    """Return why nothing can be compiled here, or None."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        return f"there is no C++ compiler ({compiler}; set CXX to another)"
    return None


def _reference_case(potential: Model, data: Data) -> tuple[GraphInputs, list[Tensor]]:
    """Return the tensors of structures, and the outputs of the model for them."""
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
    """Return the derivative of the energy by strain, [G, 3, 3] eV, whether or not there is a volume."""
    with gradients_enabled():
        moved = differentiable(data)
        moved.pos = pos = moved.pos.detach().requires_grad_()
        strain = pos.new_zeros(len(graph_pointers(data)) - 1, 3, 3, requires_grad=True)
        stretch(moved, (strain + strain.mT) / 2)
        energy = energies(moved)["energy"]
        moved.pos = pos
        return derivatives(energy, moved, strain, name="energy")[1].detach()


def _verify(run: Run, cases: Sequence[tuple[GraphInputs, list[Tensor]]], potential: Model) -> float:
    errors = ((inputs, worst_error(run, inputs, expected)) for inputs, expected in cases)
    return check_errors(potential, "graph", errors)


def _description(potential: Model, source: Model, test: tuple[GraphInputs, list[Tensor]]) -> dict[str, Any]:
    parameter = next(potential.parameters())
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
        "sha256": weights_sha256(source),
        "inputs": list(GraphInputs._fields),
        "outputs": [
            {"name": name, "unit": "eV" if name == DERIVATIVE else field(name).unit} for name in output_names(potential)
        ],
        "test": {"inputs": [_plain(tensor) for tensor in inputs], "outputs": [_plain(tensor) for tensor in outputs]},
    }


def _plain(tensor: Tensor) -> dict[str, Any]:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return {"dtype": dtype, "shape": list(tensor.shape), "values": tensor.flatten().tolist()}
