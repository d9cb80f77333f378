"""A potential and its derivatives as one graph of PyTorch's operators, for structures of any size."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, fx, nn
from torch._ops import OpOverload
from torch.export import Dim, ExportedProgram, export
from torch.fx.experimental.proxy_tensor import make_fx
from torch_geometric.data import Data

from geoeq import kernels
from geoeq.errors import InputError
from geoeq.fields import uncertainty_name
from geoeq.geometry.random_structures import random_batch
from geoeq.models import Ensemble, Model
from geoeq.models.wrappers.forces import stretch
from geoeq.pointers import row_pointers
from geoeq.simulate.engines.graph_inputs import DERIVATIVE, GraphInputs, graph_inputs
from geoeq.simulate.potential import energies_within

__all__ = ["as_data", "example_inputs", "output_names", "trace", "whole_graph"]

#: The dimension of each of ``GraphInputs`` that may have any size.
_FREE = (0, 0, 0, 0, 1, 0)


def output_names(model: Model) -> list[str]:
    """What the graph of a model gives, in order. A stress, and its uncertainty, would need a volume."""
    if energies_within(model) is None:
        return [*model.fields]
    named = (name for name in model.fields if name not in ("forces", "stress", uncertainty_name("stress")))
    return [*named, "forces", DERIVATIVE]


class _Potential(nn.Module):
    """Outputs, and the derivatives of the energy, in the order of ``output_names``."""

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
            given = [_with_derivatives(member, inputs) for member in self.model.models]
            derivative = torch.stack([entry.pop(DERIVATIVE) for entry in given]).mean(0)
            outputs = self.model.combined(given) | {DERIVATIVE: derivative}
        else:
            outputs = _with_derivatives(self.model, inputs)
        return tuple(outputs[name].detach() for name in self.names)


def _with_derivatives(model: Model, inputs: GraphInputs) -> dict[str, Tensor]:
    """What a ``Forces`` gives, with the derivative by strain in place of a stress."""
    data = as_data(inputs)
    with torch.enable_grad():
        data.pos = moved = inputs.positions.detach().requires_grad_()
        strain = torch.zeros_like(inputs.cells).requires_grad_()
        stretch(data, (strain + strain.mT) / 2)
        outputs: dict[str, Tensor] = dict(model.model(data))  # type: ignore[operator]
        gradients = torch.autograd.grad(outputs["energy"].sum(), [moved, strain], materialize_grads=True)
    return outputs | {"forces": -gradients[0], DERIVATIVE: gradients[1]}


def example_inputs(model: Model) -> GraphInputs:
    """Structures to trace with, on the device of the model; only their sizes matter."""
    data = random_batch((5, 9, 11, 3, 7, 13, 2), periodic=True).to(next(model.parameters()).device)
    return graph_inputs(data, 3.0)


def as_data(inputs: GraphInputs) -> Data:
    """What a model takes, while it is traced; no edges but those of the inputs."""
    return Data(
        pos=inputs.positions,
        z=inputs.numbers,
        batch=inputs.batch,
        ptr=row_pointers(inputs.batch, inputs.cells.shape[0]),
        cell=inputs.cells,
        edge_index=inputs.edges,
        edge_shifts=inputs.shifts,
        edge_cutoff=inputs.positions.new_zeros(1),  # while a graph is traced it is taken to be that of the model
    )


def trace(model: Model, example: GraphInputs) -> ExportedProgram:
    """The graph of a potential, with the reference kernels: it needs nothing of geoeq to be run.

    Args:
        model: as ``as_potential`` makes it.
        example: on the device of the model; its sizes differ from each other and from 1, 2 and 3.

    Raises:
        InputError: the graph depends on a size or a value, or holds an operator that is not one of PyTorch.
    """
    graph = whole_graph(_Potential(model), model.title, example)
    try:
        return export(graph, tuple(example), dynamic_shapes=tuple({free: Dim.DYNAMIC} for free in _FREE))
    except Exception as error:  # whatever PyTorch raises where it cannot follow
        raise _not_followed(model.title, error) from error


def whole_graph(module: nn.Module, title: str, example: GraphInputs) -> fx.GraphModule:
    """The graph of a module of ``GraphInputs``, for any sizes, with the reference kernels.

    Raises:
        InputError: the graph depends on a size or a value, or holds an operator that is not one of PyTorch.
    """
    sizes = [tensor.shape[free] for tensor, free in zip(example, _FREE, strict=True)]
    distinct = {sizes[0], sizes[3], sizes[4]}  # equal sizes would be taken to be one
    if len(distinct) < 3 or distinct & {0, 1, 2, 3}:
        raise InputError(f"To trace a graph, N, G and E must differ, and be 4 at least; they are {sorted(distinct)}.")
    try:
        with kernels.use("reference"), _compiling():
            graph = make_fx(module, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*example)
    except Exception as error:  # whatever PyTorch raises where it cannot follow
        raise _not_followed(title, error) from error
    own = sorted({str(node.target) for node in graph.graph.nodes if _foreign(node.target)})
    if own:
        raise InputError(f"{title} cannot be exported: of its operators these are none of PyTorch: {own}.")
    _separate(graph)
    return graph


def _separate(graph: fx.GraphModule) -> None:
    """Give each constant an array of its own, in the order of its indices: files hold whole arrays."""
    for name, value in [*vars(graph).items(), *graph._parameters.items(), *graph._buffers.items()]:
        if not isinstance(value, Tensor):
            continue
        if not value.is_contiguous() or value.untyped_storage().nbytes() != value.numel() * value.element_size():
            whole = value.detach().clone(memory_format=torch.contiguous_format)
            setattr(graph, name, nn.Parameter(whole, False) if isinstance(value, nn.Parameter) else whole)


def _not_followed(title: str, error: Exception) -> InputError:
    reason = str(error).strip().partition("\n")[0]
    return InputError(
        f"{title} cannot be exported: no graph of it holds for all sizes ({type(error).__name__}: {reason})"
    )


def _foreign(target: object) -> bool:
    return isinstance(target, OpOverload) and target.namespace not in ("aten", "prims", "higher_order")


@contextlib.contextmanager
def _compiling() -> Iterator[None]:
    """What ``torch.compiler.is_compiling`` says within torch.export, for ``make_fx``, which does not say it."""
    before = torch.compiler._is_compiling_flag
    torch.compiler._is_compiling_flag = True
    try:
        yield
    finally:
        torch.compiler._is_compiling_flag = before
