"""``f(g·x) == g·f(x)`` for random rotations, reflections, translations and permutations, and for batches."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch

from geoeq.errors import InputError, unknown_name
from geoeq.geometry.groups import Symmetry, Turns, random_element, relative_error, symmetries_of, turns_of
from geoeq.geometry.random_structures import random_batch
from geoeq.symmetry.functions import INVARIANT_FEATURES, Function, as_function

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
    """Largest error of each symmetry and output, relative to the output's largest entry.

    Args:
        candidate: a Layer, a Rowwise, a RadialFunction, an embedding, anything called as ``(x, graph)`` that has
            irreps_in and irreps_out, or anything that maps PyG Data to a dict of the names in ``geoeq.fields``.
        batch: structures to try; by default ``random_batch()`` in the dtype of the candidate.
        symmetries: which to try; by default all that the candidate's ``group`` has: "SE(3)" without reflections,
            "T(3)" without rotations too, and the other names of ``geoeq.geometry.frames.FrameGroup``.
        samples: group elements for each symmetry.
        seed: of the group elements and of the features of a layer.
        turns: the coordinate that rotations leave alone, or all elements of a finite group; by default as the
            candidate's group says.

    Raises:
        InputError: the candidate cannot be called, or a symmetry is unknown.
    """
    if symmetries is None:
        symmetries = symmetries_of(getattr(candidate, "group", "E(3)"))
    for symmetry in symmetries:
        if symmetry not in get_args(Symmetry):
            raise InputError(unknown_name("symmetry", symmetry, get_args(Symmetry)))
    turns = turns_of(candidate) if turns is None else turns
    dtype = dtype_of(candidate, batch)
    data = (random_batch(dtype=dtype) if batch is None else batch).clone()
    function, irreps_x = as_function(candidate)
    generator = torch.Generator().manual_seed(seed)
    if irreps_x != INVARIANT_FEATURES or "x" not in data:
        data.x = torch.randn(data.num_nodes or 0, irreps_x.dim, generator=generator, dtype=torch.float64).to(dtype)
    with torch.no_grad():
        outputs = function(data)
        errors: dict[tuple[str, str], float] = {}
        for symmetry in symmetries:
            for _ in range(1 if symmetry == "batch" else samples):
                if symmetry == "batch":
                    expected = {name: output.value for name, output in outputs.items()}
                    found = _one_by_one(function, data)
                else:
                    element = random_element(symmetry, data, generator, turns)
                    expected = {name: element.on_output(output) for name, output in outputs.items()}
                    found = {name: out.value for name, out in function(element.on_data(data, irreps_x)).items()}
                for name, value in expected.items():
                    error = relative_error(found[name], value)
                    errors[symmetry, name] = max(error, errors.get((symmetry, name), 0.0))
    return errors


def dtype_of(candidate: object, batch: Batch | None) -> torch.dtype:
    """That of its parameters and, where it has none, of the structures; float64 where there are none either."""
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
    """Raise unless the candidate keeps every symmetry.

    Args:
        candidate, batch, symmetries, samples, seed: as for ``equivariance_errors``.
        tolerance: largest relative error; by default 1e-9 in float64 and 1e-4 in float32. For rotations and
            reflections the candidate's own ``equivariance_error`` counts where it is larger: what is sampled on a grid
            is symmetric only to that.

    Raises:
        AssertionError: a symmetry is broken; the message lists which, in which output, and by how much.
    """
    errors = equivariance_errors(candidate, batch, symmetries=symmetries, samples=samples, seed=seed)
    if tolerance is None:
        tolerance = 1e-9 if dtype_of(candidate, batch) == torch.float64 else 1e-4
    own: float = getattr(candidate, "equivariance_error", 0.0)
    limits = {"rotation": max(tolerance, own), "reflection": max(tolerance, own)}
    broken = [
        f"{symmetry} of '{name}': {error:.1e}"
        for (symmetry, name), error in errors.items()
        if error > limits.get(symmetry, tolerance)
    ]
    if broken:
        name = type(candidate).__name__ if isinstance(candidate, nn.Module) else repr(candidate)
        raise AssertionError(f"{name} is not equivariant (tolerance {tolerance:.0e}): {'; '.join(broken)}.")
