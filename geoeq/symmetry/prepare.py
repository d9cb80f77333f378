"""What a stranger's model takes and gives, found out by trying."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from geoeq.data.structures import model_inputs
from geoeq.errors import FieldError, InputError
from geoeq.fields import field
from geoeq.geometry.groups import relative_error, turns_of
from geoeq.geometry.random_structures import random_batch
from geoeq.graph import in_dtype
from geoeq.layers.layer import Group, Layer, RadialFunction, Rowwise
from geoeq.models import Model
from geoeq.symmetry.calculators import from_calculator, is_calculator
from geoeq.symmetry.subject import Candidate, Outputs

__all__ = ["one_line", "prepare"]

#: elements of the random structures, where nobody says which.
DEFAULT_ELEMENTS = (1, 6, 7, 8, 16)


def prepare(
    candidate: object,
    data: Data | Sequence[Data] | None = None,
    *,
    name: str | None = None,
    elements: Sequence[int] | None = None,
    cutoff: float | None = None,
    group: Group | None = None,
    conservative: bool | None = None,
    seed: int = 0,
) -> Candidate:
    """Find out what a candidate takes and gives.

    Args:
        candidate: a Model, another module or function on Data that gives a dict of names in ``geoeq.fields``, or a
            calculator of ASE.
        data: structures to try; by default random ones, periodic ones among them if it takes cells.
        name: for the table; by default that of the class or function.
        elements: atomic numbers of the random structures; by default those it knows.
        cutoff, group, conservative: as for ``report``.
        seed: of the random structures.

    Raises:
        InputError: it cannot be called, is a layer, or fails on every structure.
        FieldError: an output is not in ``geoeq.fields``.
    """
    if isinstance(candidate, Layer | Rowwise | RadialFunction):
        raise InputError(f"{type(candidate).__name__} is a layer: geoeq.symmetry.assert_equivariant checks it.")
    calculator = is_calculator(candidate)
    if not (calculator or callable(candidate)) or isinstance(candidate, type):
        raise InputError(f"{_name(candidate)} is neither a model nor a calculator: give something called on Data.")
    versions = {dtype: _version(candidate, dtype) for dtype in (torch.float64, torch.float32)}
    batches, remarks = _given(data) if data is not None else _random(candidate, versions, elements, seed)
    if calculator and data is None:  # a random charge would be a charged or open-shell structure
        batches = [_without_charges(batch) for batch in batches]
    dtype, failure = _dtype(versions, batches[0])
    if failure:
        remarks.append(failure)
    function = versions[dtype][0]
    batches = [in_dtype(batch, dtype) for batch in batches]
    if data is None and (
        reason := _ignores_cells(function, in_dtype(random_batch(periodic=True, seed=seed), dtype), batches)
    ):
        remarks.append(f"not tried on periodic structures: {reason}")
    elif data is None:
        periodic = _with_elements(random_batch((5, 1, 4), periodic=True, seed=seed), batches[0].z)
        batches.append(in_dtype(_without_charges(periodic) if calculator else periodic, dtype))
    with torch.no_grad():
        found = function(batches[0])
    for key in found:
        field(key)
    remarks += [
        f"{key} hardly depends on the positions, so that its checks say little" for key in _dead(function, batches[0])
    ]
    known_cutoff = getattr(candidate, "cutoff", None) if isinstance(candidate, nn.Module) else None
    own_forces = isinstance(candidate, Model) and not candidate.conservative
    return Candidate(
        name=name or _name(candidate),
        function=function,
        single=versions[torch.float32][0] if not calculator and dtype == torch.float64 else None,
        dtype=dtype,
        precision=_precision(found, dtype),
        batches=tuple(batches),
        remarks=tuple(remarks),
        group=group or str(getattr(candidate, "group", "E(3)")),
        turns=None if group else turns_of(candidate),
        symmetric_to=float(getattr(candidate, "equivariance_error", 0.0)),
        cutoff=cutoff or (float(known_cutoff) if isinstance(known_cutoff, int | float) else None),
        calculator=calculator,
        complete=isinstance(candidate, Model) and candidate.cutoff is None,
        conservative=not own_forces if conservative is None else conservative,
        differentiable=not calculator and _differentiable(function, batches[0]),
        module=versions[dtype][1],
    )


def _name(candidate: Any) -> str:
    if isinstance(candidate, type) or not hasattr(candidate, "__name__"):
        return getattr(candidate, "__name__", type(candidate).__name__)
    return str(candidate.__name__)


def _version(candidate: Any, dtype: torch.dtype) -> tuple[Outputs, nn.Module | None]:
    """The candidate in a dtype: a copy of a module, anything else as it is."""
    if is_calculator(candidate):
        return from_calculator(candidate), None
    if not isinstance(candidate, nn.Module):
        return candidate, None
    network = copy.deepcopy(candidate).to(dtype).eval()
    return network.__call__, network  # a plain function, whatever attributes the network has


def _given(data: Data | Sequence[Data]) -> tuple[list[Batch], list[str]]:
    if isinstance(data, Data) and "batch" in data:
        return [data], []
    graphs = [data] if isinstance(data, Data) else list(data)
    open_graphs, periodic = [graph for graph in graphs if "cell" not in graph], [g for g in graphs if "cell" in g]
    return [Batch.from_data_list(part) for part in (open_graphs, periodic) if part], []


def _random(
    candidate: object,
    versions: Mapping[torch.dtype, tuple[Outputs, nn.Module | None]],
    elements: Sequence[int] | None,
    seed: int,
) -> tuple[list[Batch], list[str]]:
    """Random molecules of elements that the candidate knows."""
    remarks = []
    known = elements or getattr(candidate, "elements", None)
    if not known:
        fit, refused = [], {}
        for number in DEFAULT_ELEMENTS:
            pair = random_batch((2,), seed=seed)
            pair.z = torch.full_like(pair.z, number)
            try:
                _dtype(versions, pair)
                fit.append(number)
            except InputError as error:
                refused[number] = str(error)
        if not fit:
            raise InputError(f"{_name(candidate)} fails on every structure: {next(iter(refused.values()))}")
        known = fit
        remarks += [f"element {number} left out: {reason}" for number, reason in refused.items()]
    batch = random_batch(seed=seed)
    return [_with_elements(batch, torch.tensor(list(known)))], remarks


def _with_elements(batch: Batch, known: Tensor) -> Batch:
    known = known.unique()
    order = torch.arange(len(batch.z))
    batch.z = known[(batch.z * 7 + order) % len(known)]
    return batch


def _without_charges(batch: Batch) -> Batch:
    graphs = batch.to_data_list()
    plain = [model_inputs(graph.z, graph.pos, cell=graph.get("cell"), pbc=graph.get("pbc")) for graph in graphs]
    return Batch.from_data_list(plain)


def _dtype(versions: Mapping[torch.dtype, tuple[Outputs, nn.Module | None]], batch: Batch) -> tuple[torch.dtype, str]:
    """The best precision in which it works, and why not float64 if so."""
    reasons = []
    for dtype, (function, _) in versions.items():
        try:
            with torch.no_grad():
                found = function(in_dtype(batch, dtype))
        except Exception as error:  # whatever a stranger's model raises
            if isinstance(error, FieldError):
                raise
            reasons.append(one_line(error))
            continue
        if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
            raise InputError("What is checked gives a dict of tensors, whose names are in geoeq.fields.")
        return dtype, f"not tried in float64: {reasons[0]}" if reasons else ""
    raise InputError(reasons[0])


def _ignores_cells(function: Outputs, periodic: Batch, batches: Sequence[Batch]) -> str:
    """Why periodic structures are not tried; empty where the outputs depend on the cell."""
    periodic = _with_elements(periodic, batches[0].z)
    smaller = periodic.clone()
    smaller.cell = 0.9 * periodic.cell
    try:
        with torch.no_grad():
            before, after = function(periodic), function(smaller)
    except Exception as error:  # whatever a stranger's model raises
        return one_line(error)
    same = all(torch.equal(before[name], after[name]) for name in before if name in after)
    return "it ignores data.cell" if same else ""


def _dead(function: Outputs, batch: Batch) -> list[str]:
    """Outputs that stay as they are where the atoms move by a tenth of an Å."""
    moved = batch.clone()
    moved.pos = batch.pos + 0.1 * torch.randn(batch.pos.shape, generator=torch.Generator().manual_seed(1)).to(batch.pos)
    with torch.no_grad():
        before, after = function(batch), function(moved)
    return [name for name, value in before.items() if relative_error(after[name], value) < 1e-7]


def _precision(found: Mapping[str, Tensor], dtype: torch.dtype) -> torch.dtype:
    """float32 where no value has more digits."""
    values = torch.cat([value.detach().double().flatten() for value in found.values()])
    values = values[values.isfinite() & (values != values.round(decimals=3))]
    rounded = len(values) > 0 and bool((values.float().double() == values).all())
    return torch.float32 if rounded or dtype == torch.float32 else torch.float64


def _differentiable(function: Outputs, batch: Batch) -> bool:
    data = batch.clone()
    data.pos = batch.pos.clone().requires_grad_()
    try:
        return any(value.requires_grad for value in function(data).values())
    except Exception:  # whatever a stranger's model raises
        return False


def one_line(error: BaseException) -> str:
    """An error as one short line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:200]
