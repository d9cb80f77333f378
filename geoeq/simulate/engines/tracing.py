"""Trace a potential and its derivatives into one graph of PyTorch operators, for structures of any size."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, fx, nn
from torch._ops import OpOverload
from torch.export import Dim, ExportedProgram, export
from torch.fx.experimental.proxy_tensor import make_fx

from geoeq import kernels
from geoeq.derivatives import derivatives
from geoeq.errors import InputError
from geoeq.fields import uncertainty_name
from geoeq.geometry.random_structures import random_batch
from geoeq.models import Ensemble, Model
from geoeq.models.wrappers.forces import stretch
from geoeq.simulate.engines.graph_inputs import DERIVATIVE, GraphInputs, as_data, graph_inputs
from geoeq.simulate.potential import energies_within

__all__ = ["example_inputs", "output_names", "trace", "whole_graph"]

#: For each tensor of ``GraphInputs``, the dimension that may have any size.
_FREE = (0, 0, 0, 0, 1, 0)


def output_names(model: Model) -> list[str]:
    """Return the outputs of the graph of a model, in order, without the stress, which would need a volume."""
    if energies_within(model) is None:
        return [*model.fields]
    names = (name for name in model.fields if name not in ("forces", "stress", uncertainty_name("stress")))
    return [*names, "forces", DERIVATIVE]


class _Potential(nn.Module):
    """Module that returns the outputs and the derivatives of the energy, in the order of ``output_names``."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        self.names = output_names(model)

    def forward(
        self, positions: Tensor, numbers: Tensor, batch: Tensor, cells: Tensor, edges: Tensor, shifts: Tensor
    ) -> tuple[Tensor, ...]:
        inputs = GraphInputs(positions, numbers, batch, cells, edges, shifts)
        if energies_within(self.model) is None:
            outputs = self.model(as_data(inputs))
        elif isinstance(self.model, Ensemble):
            members = [_with_derivatives(member, inputs) for member in self.model.models]
            derivative = torch.stack([member.pop(DERIVATIVE) for member in members]).mean(0)
            outputs = self.model.combined(members) | {DERIVATIVE: derivative}
        else:
            outputs = _with_derivatives(self.model, inputs)
        return tuple(outputs[name].detach() for name in self.names)


def _with_derivatives(model: Model, inputs: GraphInputs) -> dict[str, Tensor]:
    """Return the outputs of a ``Forces`` model, with the derivative by strain instead of the stress."""
    data = as_data(inputs)
    with torch.enable_grad():
        data.pos = moved = inputs.positions.detach().requires_grad_()
        strain = torch.zeros_like(inputs.cells).requires_grad_()
        stretch(data, (strain + strain.mT) / 2)
        outputs: dict[str, Tensor] = dict(model.model(data))  # type: ignore[operator]
        data.pos = moved
        gradients = derivatives(outputs["energy"], data, strain, name="energy")
    return outputs | {"forces": -gradients[0], DERIVATIVE: gradients[1]}


def example_inputs(model: Model) -> GraphInputs:
    """Return structures to trace with, on the device of the model; only their sizes matter."""
    data = random_batch((5, 9, 11, 3, 7, 13, 2), periodic=True).to(next(model.parameters()).device)
    return graph_inputs(data, 3.0)


def trace(model: Model, example: GraphInputs) -> ExportedProgram:
    """Trace a potential with the reference kernels; running the graph needs nothing of geoeq.

    Args:
        model: potential returned by ``as_potential``.
        example: structures on the device of the model; their sizes must differ from each other and from 1, 2 and 3.

    Raises:
        InputError: the graph depends on a size or a value, or contains an operator that is not part of PyTorch.
    """
    graph = whole_graph(_Potential(model), model.title, example)
    try:
        return export(graph, tuple(example), dynamic_shapes=tuple({free: Dim.DYNAMIC} for free in _FREE))
    except Exception as error:  # PyTorch raises errors of many kinds where it cannot trace
        raise _untraceable(model.title, error) from error


def whole_graph(module: nn.Module, title: str, example: GraphInputs) -> fx.GraphModule:
    """Trace a module that takes ``GraphInputs``, for any sizes, with the reference kernels.

    Raises:
        InputError: the graph depends on a size or a value, or contains an operator that is not part of PyTorch.
    """
    sizes = [tensor.shape[free] for tensor, free in zip(example, _FREE, strict=True)]
    distinct = {sizes[0], sizes[3], sizes[4]}  # equal sizes would be traced as one symbol
    if len(distinct) < 3 or distinct & {0, 1, 2, 3}:
        raise InputError(f"To trace a graph, N, G and E must differ and be at least 4; they are {sorted(distinct)}.")
    try:
        with kernels.use("reference"), _compiling():
            graph = make_fx(module, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*example)
    except Exception as error:  # PyTorch raises errors of many kinds where it cannot trace
        raise _untraceable(title, error) from error
    foreign = sorted({str(node.target) for node in graph.graph.nodes if _is_foreign(node.target)})
    if foreign:
        raise InputError(f"{title} cannot be exported: these operators are not part of PyTorch: {foreign}.")
    _separate_constants(graph)
    return graph


def _separate_constants(graph: fx.GraphModule) -> None:
    """Copy each constant into its own contiguous storage, because files store whole storages."""
    for name, value in [*vars(graph).items(), *graph._parameters.items(), *graph._buffers.items()]:
        if not isinstance(value, Tensor):
            continue
        if not value.is_contiguous() or value.untyped_storage().nbytes() != value.numel() * value.element_size():
            whole = value.detach().clone(memory_format=torch.contiguous_format)
            setattr(graph, name, nn.Parameter(whole, False) if isinstance(value, nn.Parameter) else whole)


def _untraceable(title: str, error: Exception) -> InputError:
    reason = str(error).strip().partition("\n")[0]
    return InputError(
        f"{title} cannot be exported: no graph of it is valid for all sizes ({type(error).__name__}: {reason})"
    )


def _is_foreign(target: object) -> bool:
    return isinstance(target, OpOverload) and target.namespace not in ("aten", "prims", "higher_order")


@contextlib.contextmanager
def _compiling() -> Iterator[None]:
    """Make ``torch.compiler.is_compiling`` true, as within torch.export: ``make_fx`` does not set it."""
    before = torch.compiler._is_compiling_flag
    torch.compiler._is_compiling_flag = True
    try:
        yield
    finally:
        torch.compiler._is_compiling_flag = before
