"""Verify an exported potential: compare it with its model on structures of many sizes, open and periodic."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from ase import Atoms
from torch import Tensor
from torch_geometric.data import Batch, Data

from geoeq.data.structures import model_inputs, to_data
from geoeq.errors import InputError
from geoeq.geometry.random_structures import random_batch
from geoeq.models import Model
from geoeq.simulate.engines.graph_inputs import GraphInputs

__all__ = ["TOLERANCES", "Run", "check_errors", "structures_to_compare", "worst_error"]

#: Evaluates the tensors of ``GraphInputs``.
Run = Callable[..., Sequence[Tensor]]

#: Largest accepted difference from the model, as measured by ``worst_error``.
TOLERANCES = {"float64": 1e-10, "float32": 1e-4}

#: Batches of structures by their numbers of atoms: many structures, a pair, atoms without edges, one atom.
_SIZES = ((5, 9, 11, 3, 7, 13, 2), (23, 31), (1, 1, 4), (17,), (2,), (1,))


def structures_to_compare(potential: Model, extra: Sequence[Atoms] = ()) -> Iterator[Data]:
    """Yield random structures of the elements of a model, open and (if it has a cutoff) periodic, then extra ones.

    The last structure is small and random.
    """
    device = next(potential.parameters()).device
    elements = torch.tensor(potential.elements or (1, 6, 7, 8, 16))

    def random(sizes: Sequence[int], periodic: bool, seed: int) -> Batch:
        graphs = random_batch(tuple(sizes), periodic=periodic, seed=seed).to_data_list()
        return Batch.from_data_list([_plain(graph, elements) for graph in graphs]).to(device)

    periodic = (True, False) if potential.cutoff is not None else (False,)
    for seed, sizes in enumerate(_SIZES):
        for repeats in periodic:
            yield random(sizes, repeats, seed)
    for atoms in extra:
        yield to_data(atoms, torch.float64).to(device)
    yield random((4, 2), periodic[0], len(_SIZES))


def _plain(data: Data, elements: Tensor) -> Data:
    """Keep only positions and cell, with elements that the model knows."""
    return model_inputs(elements[data.z % len(elements)], data.pos, cell=data.get("cell"), pbc=data.get("pbc"))


def worst_error(run: Run, inputs: GraphInputs, expected: Sequence[Tensor]) -> float:
    """Return the largest error of any output, relative to the largest value of that output (at least 0.001 units).

    The error is infinite if shapes differ and NaN if a value is NaN.
    """
    with torch.no_grad():
        outputs = run(*inputs)
    errors = []
    for value, right in zip(outputs, expected, strict=True):
        if value.shape != right.shape:
            return float("inf")
        if right.numel():
            errors.append(((value - right).abs().max() / right.abs().max().clamp(min=1e-3)).double())
    return float(torch.stack(errors).max())


def check_errors(potential: Model, kind: str, errors: Iterable[tuple[GraphInputs, float]]) -> float:
    """Return the largest of the errors of an exported ``kind`` ("graph" ...).

    Raises:
        InputError: an error exceeds the tolerance for the dtype of the potential.
    """
    limit = TOLERANCES[str(next(potential.parameters()).dtype).removeprefix("torch.")]
    worst = 0.0
    for inputs, error in errors:
        if not error <= limit:
            raise InputError(
                f"{potential.title} cannot be exported: for structures of {inputs.batch.bincount().tolist()} atoms the "
                f"{kind} differs from the model by {error:.1e}, and {limit:.0e} is allowed."
            )
        worst = max(worst, error)
    return worst
