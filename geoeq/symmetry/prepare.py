"""Prepare the subject of the checks: find out by testing what a model takes and returns."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from geoeq.data.structures import collate, model_inputs
from geoeq.errors import FieldError, InputError
from geoeq.fields import field
from geoeq.geometry.groups import Output, random_element, relative_error, turns_of
from geoeq.geometry.random_structures import random_batch
from geoeq.graph import in_dtype
from geoeq.layers.layer import Group, Layer, RadialFunction, Rowwise
from geoeq.models import Model
from geoeq.symmetry.calculators import from_calculator, is_calculator
from geoeq.symmetry.functions import INVARIANT_FEATURES
from geoeq.symmetry.grid_error import stated_error
from geoeq.symmetry.subject import Outputs, Subject

__all__ = ["one_line", "prepare"]

#: Default elements of the random structures.
DEFAULT_ELEMENTS = (1, 6, 7, 8, 16)

#: Number of rotated copies of the structures on which the error of grids is measured too.
ORIENTATIONS = 3


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
) -> Subject:
    """Find out what a candidate takes and returns.

    Args:
        candidate: a Model, another module or function of Data that returns a dict of names in ``geoeq.fields``, or an
            ASE calculator.
        data: test structures; by default random ones, including periodic ones if it uses cells.
        name: name for the table; by default that of the class or function.
        elements: atomic numbers of the random structures; by default those it supports.
        cutoff, group, conservative: as for ``report``.
        seed: random seed of the structures.

    Raises:
        InputError: it cannot be called, is a layer, or fails on every structure.
        FieldError: an output is not in ``geoeq.fields``.
    """
    if isinstance(candidate, Layer | Rowwise | RadialFunction):
        raise InputError(f"{type(candidate).__name__} is a layer: geoeq.symmetry.assert_equivariant checks it.")
    calculator = is_calculator(candidate)
    if not (calculator or callable(candidate)) or isinstance(candidate, type):
        raise InputError(f"{_name(candidate)} is neither a model nor a calculator: pass a function of Data.")
    versions = {dtype: _version(candidate, dtype) for dtype in (torch.float64, torch.float32)}
    batches, remarks = _batches_of(data) if data is not None else _random_molecules(candidate, versions, elements, seed)
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
        remarks.append(f"not tested on periodic structures: {reason}")
    elif data is None:
        periodic = _with_elements(random_batch((5, 1, 4), periodic=True, seed=seed), batches[0].z)
        batches.append(in_dtype(_without_charges(periodic) if calculator else periodic, dtype))
    with torch.no_grad():
        outputs = function(batches[0])
    for key in outputs:
        field(key)
    remarks += [
        f"{key} hardly depends on the positions, so that its checks are inconclusive"
        for key in _insensitive(function, batches[0])
    ]
    known_cutoff = getattr(candidate, "cutoff", None) if isinstance(candidate, nn.Module) else None
    own_forces = isinstance(candidate, Model) and not candidate.conservative
    subject = Subject(
        name=name or _name(candidate),
        function=function,
        single=versions[torch.float32][0] if not calculator and dtype == torch.float64 else None,
        dtype=dtype,
        precision=_precision(outputs, dtype),
        batches=tuple(batches),
        remarks=tuple(remarks),
        group=group or str(getattr(candidate, "group", "E(3)")),
        turns=None if group else turns_of(candidate),
        symmetric_to=0.0,
        cutoff=cutoff or (float(known_cutoff) if isinstance(known_cutoff, int | float) else None),
        calculator=calculator,
        complete=isinstance(candidate, Model) and candidate.cutoff is None,
        conservative=not own_forces if conservative is None else conservative,
        differentiable=not calculator and _differentiable(function, batches[0]),
        module=versions[dtype][1],
    )

    def evaluate(version: Any) -> dict[str, Tensor | Output]:
        same, generator = dataclasses.replace(subject, function=version.__call__), torch.Generator().manual_seed(seed)
        turned = (random_element("rotation", batches[0], generator) for _ in range(ORIENTATIONS))
        orientations = (element.on_data(batches[0], INVARIANT_FEATURES) for element in turned)
        outputs = [same.with_derivatives(batch).items() for batch in (batches[0], *orientations)]
        return {f"{name} {number}": value for number, items in enumerate(outputs) for name, value in items}

    return dataclasses.replace(subject, symmetric_to=stated_error(subject.module or candidate, evaluate))


def _name(candidate: Any) -> str:
    if isinstance(candidate, type) or not hasattr(candidate, "__name__"):
        return getattr(candidate, "__name__", type(candidate).__name__)
    return str(candidate.__name__)


def _version(candidate: Any, dtype: torch.dtype) -> tuple[Outputs, nn.Module | None]:
    """Return the candidate in a dtype: a copy of a module, any other object unchanged."""
    if is_calculator(candidate):
        return from_calculator(candidate), None
    if not isinstance(candidate, nn.Module):
        return candidate, None
    network = copy.deepcopy(candidate).to(dtype).eval()
    return network.__call__, network  # a plain function without the attributes of the network


def _batches_of(data: Data | Sequence[Data]) -> tuple[list[Batch], list[str]]:
    if isinstance(data, Data) and "batch" in data:
        return [data], []
    graphs = [data] if isinstance(data, Data) else list(data)
    open_graphs, periodic = [graph for graph in graphs if "cell" not in graph], [g for g in graphs if "cell" in g]
    return [collate(part) for part in (open_graphs, periodic) if part], []


def _random_molecules(
    candidate: object,
    versions: Mapping[torch.dtype, tuple[Outputs, nn.Module | None]],
    elements: Sequence[int] | None,
    seed: int,
) -> tuple[list[Batch], list[str]]:
    """Return random molecules of elements that the candidate supports."""
    remarks = []
    supported = elements or getattr(candidate, "elements", None)
    if not supported:
        accepted, refused = [], {}
        for number in DEFAULT_ELEMENTS:
            pair = random_batch((2,), seed=seed)
            pair.z = torch.full_like(pair.z, number)
            try:
                _dtype(versions, pair)
                accepted.append(number)
            except InputError as error:
                refused[number] = str(error)
        if not accepted:
            raise InputError(f"{_name(candidate)} fails on every structure: {next(iter(refused.values()))}")
        supported = accepted
        remarks += [f"element {number} omitted: {reason}" for number, reason in refused.items()]
    batch = random_batch(seed=seed)
    return [_with_elements(batch, torch.tensor(list(supported)))], remarks


def _with_elements(batch: Batch, elements: Tensor) -> Batch:
    elements = elements.unique()
    order = torch.arange(len(batch.z))
    batch.z = elements[(batch.z * 7 + order) % len(elements)]
    return batch


def _without_charges(batch: Batch) -> Batch:
    graphs = batch.to_data_list()
    plain = [model_inputs(graph.z, graph.pos, cell=graph.get("cell"), pbc=graph.get("pbc")) for graph in graphs]
    return Batch.from_data_list(plain)


def _dtype(versions: Mapping[torch.dtype, tuple[Outputs, nn.Module | None]], batch: Batch) -> tuple[torch.dtype, str]:
    """Return the highest working precision, and the reason if it is not float64."""
    reasons = []
    for dtype, (function, _) in versions.items():
        try:
            with torch.no_grad():
                outputs = function(in_dtype(batch, dtype))
        except Exception as error:  # a foreign model may raise anything
            if isinstance(error, FieldError):
                raise
            reasons.append(one_line(error))
            continue
        if not isinstance(outputs, Mapping) or not all(isinstance(value, Tensor) for value in outputs.values()):
            raise InputError("The outputs must be a dict of tensors with names in geoeq.fields.")
        return dtype, f"not tested in float64: {reasons[0]}" if reasons else ""
    raise InputError(reasons[0])


def _ignores_cells(function: Outputs, periodic: Batch, batches: Sequence[Batch]) -> str:
    """Return why periodic structures are not tested; empty if the outputs depend on the cell."""
    periodic = _with_elements(periodic, batches[0].z)
    smaller = periodic.clone()
    smaller.cell = 0.9 * periodic.cell
    try:
        with torch.no_grad():
            before, after = function(periodic), function(smaller)
    except Exception as error:  # a foreign model may raise anything
        return one_line(error)
    same = all(torch.equal(before[name], after[name]) for name in before if name in after)
    return "it ignores data.cell" if same else ""


def _insensitive(function: Outputs, batch: Batch) -> list[str]:
    """Return the outputs that do not change when the atoms move by a tenth of an Å."""
    moved = batch.clone()
    moved.pos = batch.pos + 0.1 * torch.randn(batch.pos.shape, generator=torch.Generator().manual_seed(1)).to(batch.pos)
    with torch.no_grad():
        before, after = function(batch), function(moved)
    return [name for name, value in before.items() if relative_error(after[name], value) < 1e-7]


def _precision(outputs: Mapping[str, Tensor], dtype: torch.dtype) -> torch.dtype:
    """Return float32 if no value has more digits."""
    values = torch.cat([value.detach().double().flatten() for value in outputs.values()])
    values = values[values.isfinite() & (values != values.round(decimals=3))]
    rounded = len(values) > 0 and bool((values.float().double() == values).all())
    return torch.float32 if rounded or dtype == torch.float32 else torch.float64


def _differentiable(function: Outputs, batch: Batch) -> bool:
    data = batch.clone()
    data.pos = batch.pos.clone().requires_grad_()
    try:
        return any(value.requires_grad for value in function(data).values())
    except Exception:  # a foreign model may raise anything
        return False


def one_line(error: BaseException) -> str:
    """Format an error as one short line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:200]
