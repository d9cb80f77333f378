"""Check ``f(g·x) == g·f(x)`` for random rotations, reflections, translations and permutations, and for batches."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import get_args

import torch
from e3nn import o3
from torch import Tensor, nn
from torch_geometric.data import Batch

from geoeq.errors import check_name
from geoeq.geometry.groups import (
    Element,
    Output,
    Symmetry,
    Turns,
    random_element,
    relative_error,
    symmetries_of,
    turns_of,
)
from geoeq.geometry.random_structures import random_batch
from geoeq.symmetry.functions import INVARIANT_FEATURES, Function, as_function
from geoeq.symmetry.grid_error import stated_error, with_finer_grids

__all__ = ["assert_equivariant", "dtype_of", "equivariance_errors"]


def _one_by_one(function: Function, data: Batch) -> dict[str, Tensor]:
    parts: dict[str, list[Tensor]] = {}
    for graph in data.to_data_list():
        for name, output in function(Batch.from_data_list([graph])).items():
            parts.setdefault(name, []).append(output.value)
    return {name: torch.cat(values) for name, values in parts.items()}


def equivariance_errors(
    candidate: object,
    batch: Batch | None = None,
    *,
    symmetries: tuple[Symmetry, ...] | None = None,
    samples: int = 2,
    seed: int = 0,
    turns: Turns = None,
) -> dict[tuple[str, str], float]:
    """Measure the largest error of each symmetry and output, relative to the output's largest entry.

    Args:
        candidate: a Layer, a Rowwise, a RadialFunction, an embedding, any callable of ``(x, graph)`` with irreps_in and
            irreps_out, or any function from PyG Data to a dict of names in ``geoeq.fields``.
        batch: test structures; by default ``random_batch()`` in the dtype of the candidate.
        symmetries: symmetries to check; by default those of the candidate's ``group``: "SE(3)" has no reflections,
            "T(3)" no rotations either; see ``geoeq.geometry.frames.FrameGroup`` for the other names.
        samples: number of group elements per symmetry.
        seed: random seed of the group elements and of the features of a layer.
        turns: coordinate that rotations leave unchanged, or all elements of a finite group; by default according to the
            candidate's group.

    Raises:
        InputError: the candidate cannot be called, or a symmetry is unknown.
    """
    if symmetries is None:
        symmetries = symmetries_of(getattr(candidate, "group", "E(3)"))
    for symmetry in symmetries:
        check_name("symmetry", symmetry, get_args(Symmetry))
    turns = turns_of(candidate) if turns is None else turns
    function, irreps_x = as_function(candidate)
    generator = torch.Generator().manual_seed(seed)
    data = _inputs(candidate, batch, irreps_x, generator)
    with torch.no_grad():
        outputs = function(data)
        errors: dict[tuple[str, str], float] = {}
        for symmetry, element in _elements(symmetries, samples, data, generator, turns):
            if element is None:
                expected = {name: output.value for name, output in outputs.items()}
                values = _one_by_one(function, data)
            else:
                expected = {name: element.on_output(output) for name, output in outputs.items()}
                values = {name: out.value for name, out in function(element.on_data(data, irreps_x)).items()}
            for name, value in expected.items():
                error = relative_error(values[name], value)
                errors[symmetry, name] = max(error, errors.get((symmetry, name), 0.0))
    return errors


def _elements(
    symmetries: tuple[Symmetry, ...], samples: int, data: Batch, generator: torch.Generator, turns: Turns
) -> Iterator[tuple[Symmetry, Element | None]]:
    """Draw the group elements of each symmetry; None stands for the graphs of the batch one by one."""
    for symmetry in symmetries:
        for _ in range(1 if symmetry == "batch" else samples):
            yield symmetry, None if symmetry == "batch" else random_element(symmetry, data, generator, turns)


def _inputs(candidate: object, batch: Batch | None, irreps_x: o3.Irreps, generator: torch.Generator) -> Batch:
    """Return the structures with random features of the irreps that the candidate takes."""
    dtype = dtype_of(candidate, batch)
    data = (random_batch(dtype=dtype) if batch is None else batch).clone()
    if irreps_x != INVARIANT_FEATURES or "x" not in data:
        data.x = torch.randn(data.num_nodes or 0, irreps_x.dim, generator=generator, dtype=torch.float64).to(dtype)
    return data


def _stated_error(
    candidate: object, batch: Batch | None, symmetries: tuple[Symmetry, ...], samples: int, seed: int
) -> float:
    """Return the error of rotations that grids cause, on all structures that ``equivariance_errors`` compares."""
    generator = torch.Generator().manual_seed(seed)
    irreps_x = as_function(candidate)[1]
    data = _inputs(candidate, batch, irreps_x, generator)
    elements = _elements(symmetries, samples, data, generator, turns_of(candidate))
    turned = [
        element.on_data(data, irreps_x)
        for symmetry, element in elements
        if element is not None and symmetry in ("rotation", "reflection")
    ]
    twin = with_finer_grids(candidate)
    with torch.no_grad():
        return max(stated_error(candidate, partial(_outputs, data), twin) for data in (data, *turned))


def _outputs(data: Batch, candidate: object) -> dict[str, Output]:
    return as_function(candidate)[0](data)


def dtype_of(candidate: object, batch: Batch | None) -> torch.dtype:
    """Return the dtype of its parameters, or else of the structures, or else float64."""
    if isinstance(candidate, nn.Module):
        for tensor in (*candidate.parameters(), *candidate.buffers()):
            if tensor.is_floating_point():
                return tensor.dtype
    return torch.float64 if batch is None else batch.pos.dtype


def assert_equivariant(
    candidate: object,
    batch: Batch | None = None,
    *,
    symmetries: tuple[Symmetry, ...] | None = None,
    tolerance: float | None = None,
    samples: int = 2,
    seed: int = 0,
) -> None:
    """Raise an error unless the candidate respects every symmetry.

    Args:
        candidate, batch, symmetries, samples, seed: as for ``equivariance_errors``.
        tolerance: largest relative error; by default 1e-9 in float64 and 1e-4 in float32. For rotations and
            reflections, ``stated_error`` applies if it is larger: functions sampled on a grid of the sphere are
            symmetric only up to an error that depends on weights and inputs.

    Raises:
        AssertionError: a symmetry is broken; the message lists the symmetries, outputs and errors.
    """
    symmetries = symmetries_of(getattr(candidate, "group", "E(3)")) if symmetries is None else symmetries
    errors = equivariance_errors(candidate, batch, symmetries=symmetries, samples=samples, seed=seed)
    if tolerance is None:
        tolerance = 1e-9 if dtype_of(candidate, batch) == torch.float64 else 1e-4
    if all(error <= tolerance for error in errors.values()):
        return
    turned = max(tolerance, _stated_error(candidate, batch, symmetries, samples, seed))
    limits = {"rotation": turned, "reflection": turned}
    broken = [
        f"{symmetry} of '{name}': {error:.1e} (tolerance {limits.get(symmetry, tolerance):.0e})"
        for (symmetry, name), error in errors.items()
        if error > limits.get(symmetry, tolerance)
    ]
    if broken:
        name = type(candidate).__name__ if isinstance(candidate, nn.Module) else repr(candidate)
        raise AssertionError(f"{name} is not equivariant: {'; '.join(broken)}.")
