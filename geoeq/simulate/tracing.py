"""A potential and its derivatives as one graph of PyTorch's operators, for structures of any size."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, fx, nn
from torch._ops import OpOverload
from torch.export import Dim, ExportedProgram, export
from torch.fx.experimental.proxy_tensor import make_fx
from torch_geometric.data import Data

from geoeq import kernels
from geoeq.errors import InputError
from geoeq.graph import Graph
from geoeq.models import Forces, Model, WithPriors
from geoeq.models.forces import stretch
from geoeq.pointers import row_pointers
from geoeq.random_structures import random_batch
from geoeq.simulate.graph_inputs import DERIVATIVE, GraphInputs, graph_inputs

__all__ = ["example_inputs", "output_names", "trace", "trace_atomic_energies"]

#: The dimension of each of ``GraphInputs`` that may have any size.
_FREE = (0, 0, 0, 0, 1, 0)


def output_names(model: Model) -> list[str]:
    """What the graph of a model gives, in order."""
    if not isinstance(model, Forces):
        return [*model.fields]
    return [*(name for name in model.fields if name not in ("forces", "stress")), "forces", DERIVATIVE]


class _Potential(nn.Module):
    """Outputs, and the derivatives of the energy, in the order of ``output_names``."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        self.names = output_names(model)

    def forward(
        self, positions: Tensor, numbers: Tensor, batch: Tensor, cells: Tensor, edges: Tensor, shifts: Tensor
    ) -> tuple[Tensor, ...]:
        data = _data(GraphInputs(positions, numbers, batch, cells, edges, shifts))
        if not isinstance(self.model, Forces):
            outputs = self.model(data)
            return tuple(outputs[name] for name in self.names)
        with torch.enable_grad():
            data.pos = moved = positions.detach().requires_grad_()
            strain = torch.zeros_like(cells).requires_grad_()
            stretch(data, (strain + strain.mT) / 2)
            outputs = dict(self.model.model(data))
            energy = outputs["energy"].sum()
            gradients = torch.autograd.grad(energy, [moved, strain], materialize_grads=True)
        outputs |= {"forces": -gradients[0], DERIVATIVE: gradients[1]}
        return tuple(outputs[name].detach() for name in self.names)


class _AtomicEnergies(nn.Module):
    """The energy of each atom: that of a model whose head takes each atom for a structure."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        for place, head in enumerate(self.model.heads):
            self.model.heads[place] = _EachAtom(head)

    def forward(
        self, positions: Tensor, numbers: Tensor, batch: Tensor, cells: Tensor, edges: Tensor, shifts: Tensor
    ) -> Tensor:
        data = _data(GraphInputs(positions, numbers, batch, cells, edges, shifts))
        if not isinstance(self.model, WithPriors):
            energies: Tensor = self.model(data)["energy"]
            return energies
        outputs: dict[str, Tensor] = dict(self.model.model(data))
        return outputs["energy"] + self.model.atomic(data, outputs)


class _EachAtom(nn.Module):
    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, x: Tensor, graph: Graph) -> dict[str, Tensor]:
        atoms = torch.arange(graph.num_nodes + 1, device=x.device)
        alone = replace(graph, batch=atoms[:-1], ptr=atoms, num_graphs=graph.num_nodes)
        outputs: dict[str, Tensor] = self.head(x, alone)
        return outputs


def example_inputs(model: Model) -> GraphInputs:
    """Structures to trace with, on the device of the model; only their sizes matter."""
    data = random_batch((5, 9, 11, 3, 7, 13, 2), periodic=True).to(next(model.parameters()).device)
    return graph_inputs(data, 3.0)


def trace_atomic_energies(model: Model, example: GraphInputs) -> fx.GraphModule:
    """The graph of the energies [N] of atoms, in float64 or the dtype of the model; derivatives go through it.

    Args:
        model: without ``Forces``. Its energy must be a sum over atoms; whether it is, is not looked at.
        example: as for ``trace``.

    Raises:
        InputError: the graph depends on a size or a value, or holds an operator that is not one of PyTorch.
    """
    return _graph(_AtomicEnergies(model), model.title, example)


def _data(inputs: GraphInputs) -> Data:
    """What a model takes, while it is traced."""
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
    graph = _graph(_Potential(model), model.title, example)
    try:
        return export(graph, tuple(example), dynamic_shapes=tuple({free: Dim.DYNAMIC} for free in _FREE))
    except Exception as error:  # whatever PyTorch raises where it cannot follow
        raise _not_followed(model.title, error) from error


def _graph(module: nn.Module, title: str, example: GraphInputs) -> fx.GraphModule:
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
