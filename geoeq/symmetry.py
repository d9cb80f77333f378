"""Does this layer or model keep the symmetries that it claims?

``assert_equivariant(f)`` checks ``f(g·x) == g·f(x)`` for random rotations, reflections, translations and
permutations, and that a batch gives what its graphs give one by one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from e3nn import o3
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from geoeq import kernels
from geoeq.constants import default_dtype
from geoeq.errors import InputError, unknown_name
from geoeq.fields import Field, Level, field
from geoeq.frames import axis_number
from geoeq.graph import Graph, build_graph
from geoeq.layers.embedding import EdgeEmbedding, IrrepsEmbedding, NodeEmbedding
from geoeq.layers.layer import Layer, RadialFunction, Rowwise
from geoeq.layers.radial import BesselBasis
from geoeq.random_structures import random_batch
from geoeq.rotations import random_rotations, random_turns

__all__ = ["Symmetry", "assert_equivariant", "equivariance_errors", "layer_graph", "random_batch"]

Symmetry = Literal["rotation", "reflection", "translation", "permutation", "batch"]

#: cutoff of the graph that a layer is tried on, in Å.
LAYER_CUTOFF = 4.0
#: degree of the harmonics of that graph.
LAYER_LMAX = 3
#: what a group does not have; E(3) has everything.
_NOT_OF: dict[str, tuple[Symmetry, ...]] = {
    "SE(3)": ("reflection",),
    "SE(2)": ("reflection",),
    "O(3)": ("translation",),
    "SO(3)": ("reflection", "translation"),
    "T(3)": ("rotation", "reflection"),
}
_NODE_KEYS = ("z", "pos", "vel", "charge", "x", "tags", "batch")


@dataclass(frozen=True)
class _Output:
    """A tensor with how it turns and where it lives."""

    value: Tensor
    level: Level
    irreps: o3.Irreps
    translates: bool = False


_Function = Callable[[Data], dict[str, _Output]]


@dataclass(frozen=True)
class _Element:
    """One group element, with a new order of the nodes."""

    rotation: Tensor
    translation: Tensor
    order: Tensor

    def on(self, irreps: o3.Irreps, value: Tensor) -> Tensor:
        if all(ir.l == 0 and ir.p == 1 for _, ir in irreps):
            return value
        with default_dtype(torch.float64):
            matrix: Tensor = irreps.D_from_matrix(self.rotation)
        flat = value.reshape(value.shape[0], irreps.dim)
        return (flat @ matrix.T.to(value)).reshape(value.shape)

    def on_data(self, data: Data, irreps_x: o3.Irreps) -> Data:
        turned = data.clone()
        vector = o3.Irreps("1o")
        turned.pos = self.on(vector, data.pos) + self.translation.to(data.pos)
        turned.x = self.on(irreps_x, data.x)
        if "vel" in data:
            turned.vel = self.on(vector, data.vel)
        if "cell" in data:
            turned.cell = self.on(vector, data.cell.reshape(-1, 3)).reshape(data.cell.shape)
        if "edge_index" in data:
            turned.edge_index = torch.argsort(self.order)[data.edge_index]
        for key in _NODE_KEYS:
            if key in data:
                turned[key] = turned[key][self.order]
        return turned

    def on_output(self, output: _Output) -> Tensor:
        value = self.on(output.irreps, output.value)
        if output.translates:
            value = value + self.translation.to(value)
        return value[self.order] if output.level == "node" else value


def _function(candidate: object) -> tuple[_Function, o3.Irreps]:
    """The candidate as a function of Data, and how its input ``data.x`` turns."""
    if isinstance(candidate, RadialFunction):
        radial = candidate

        def lengths(data: Data) -> dict[str, _Output]:
            graph = build_graph(data, LAYER_CUTOFF)
            value = kernels.segment_sum(radial(graph.lengths), graph)
            return {"sum over edges": _Output(value, "node", o3.Irreps(f"{radial.width}x0e"))}

        return lengths, o3.Irreps("4x0e")
    if isinstance(candidate, NodeEmbedding | IrrepsEmbedding | EdgeEmbedding):
        return _embedded(candidate), o3.Irreps("4x0e")
    if isinstance(candidate, Rowwise):
        rowwise = candidate

        def rows(data: Data) -> dict[str, _Output]:
            return {"features": _Output(rowwise(data.x), "node", rowwise.irreps_out)}

        return rows, rowwise.irreps_in
    irreps_in, irreps_out = getattr(candidate, "irreps_in", None), getattr(candidate, "irreps_out", None)
    if isinstance(candidate, Layer) or (isinstance(irreps_in, o3.Irreps) and isinstance(irreps_out, o3.Irreps)):
        layer: Callable[..., Tensor] = candidate  # type: ignore[assignment]
        irreps = o3.Irreps(irreps_out)

        def features(data: Data) -> dict[str, _Output]:
            return {"features": _Output(layer(data.x, layer_graph(layer, data)), "node", irreps)}

        return features, o3.Irreps(irreps_in)
    if not callable(candidate):
        raise InputError(f"{type(candidate).__name__} is neither a layer nor a model: it cannot be called.")
    model: Callable[[Data], Mapping[str, Tensor]] = candidate

    def outputs(data: Data) -> dict[str, _Output]:
        return {name: _named(field(name), value) for name, value in model(data).items()}

    return outputs, o3.Irreps("4x0e")


def layer_graph(layer: object, data: Data) -> Graph:
    """The graph that a layer is tried on: with the edge attributes that it needs, a Bessel basis of the distance."""
    graph = build_graph(data, LAYER_CUTOFF, lmax=LAYER_LMAX)
    width: int = getattr(layer, "edge_width", 0)
    return dataclasses.replace(graph, edge_attr=BesselBasis(width, LAYER_CUTOFF)(graph.lengths)) if width else graph


def _embedded(embedding: NodeEmbedding | IrrepsEmbedding | EdgeEmbedding) -> _Function:
    """An embedding as a function of Data; what belongs to edges is summed at their receivers."""

    def inputs(data: Data) -> dict[str, _Output]:
        if isinstance(embedding, EdgeEmbedding):
            graph = build_graph(data, LAYER_CUTOFF)
            value = kernels.segment_sum(embedding(data, graph), graph)
        else:
            value = embedding(data)
        irreps = embedding.irreps if isinstance(embedding, IrrepsEmbedding) else o3.Irreps(f"{value.shape[-1]}x0e")
        return {"embedding": _Output(value, "node", irreps)}

    return inputs


def _named(known: Field, value: Tensor) -> _Output:
    return _Output(value, known.level, o3.Irreps(known.irreps), known.translates)


def _elements(symmetry: Symmetry, data: Data, generator: torch.Generator, axis: int | None) -> _Element:
    with default_dtype(torch.float64):
        rotation, translation = torch.eye(3), torch.zeros(3)
        order = torch.arange(data.num_nodes or 0)
        if symmetry in ("rotation", "reflection"):
            if axis is None:
                rotation, mirror = random_rotations(1, generator)[0], -torch.eye(3)
            else:  # a mirror that contains the axis
                rotation, mirror = random_turns(1, torch.eye(3)[axis].tolist(), generator)[0], torch.eye(3)
                mirror[axis - 1, axis - 1] = -1
            rotation = rotation if symmetry == "rotation" else rotation @ mirror
        elif symmetry == "translation":
            translation = 3 * torch.randn(3, generator=generator)
        else:
            shuffled = torch.randperm(len(order), generator=generator)
            order = shuffled[torch.argsort(data.batch[shuffled], stable=True)]
    return _Element(rotation, translation, order)


def _one_by_one(function: _Function, data: Batch) -> dict[str, Tensor]:
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
) -> dict[tuple[str, str], float]:
    """Largest error of each symmetry and output, relative to the output's largest entry.

    Args:
        candidate: a Layer, a Rowwise, a RadialFunction, an embedding, anything called as ``(x, graph)`` that has
            irreps_in and irreps_out, or anything that maps PyG Data to a dict of the names in ``geoeq.fields``.
        batch: structures to try; by default ``random_batch()`` in the dtype of the candidate.
        symmetries: which to try; by default all that the candidate's ``group`` has: "SE(3)" without reflections,
            "T(3)" without rotations too, and the other names of ``geoeq.frames.FrameGroup``.
        samples: group elements for each symmetry.
        seed: of the group elements and of the features of a layer.

    Raises:
        InputError: the candidate cannot be called, or a symmetry is unknown.
    """
    group: str = getattr(candidate, "group", "E(3)")
    if symmetries is None:
        symmetries = tuple(name for name in get_args(Symmetry) if name not in _NOT_OF.get(group, ()))
    for symmetry in symmetries:
        if symmetry not in get_args(Symmetry):
            raise InputError(unknown_name("symmetry", symmetry, get_args(Symmetry)))
    dtype = _dtype(candidate, batch)
    data = (random_batch(dtype=dtype) if batch is None else batch).clone()
    function, irreps_x = _function(candidate)
    generator = torch.Generator().manual_seed(seed)
    axis = axis_number(group, getattr(candidate, "axis", None)) if group in ("SE(2)", "E(2)") else None
    if irreps_x != o3.Irreps("4x0e") or "x" not in data:
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
                    element = _elements(symmetry, data, generator, axis)
                    expected = {name: element.on_output(output) for name, output in outputs.items()}
                    found = {name: out.value for name, out in function(element.on_data(data, irreps_x)).items()}
                for name, value in expected.items():
                    error = _relative(found[name], value)
                    errors[symmetry, name] = max(error, errors.get((symmetry, name), 0.0))
    return errors


def _dtype(candidate: object, batch: Batch | None) -> torch.dtype:
    if isinstance(candidate, nn.Module):
        for tensor in (*candidate.parameters(), *candidate.buffers()):
            if tensor.is_floating_point():
                return tensor.dtype
    return torch.float64 if batch is None else batch.pos.dtype


def _relative(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape or not (found.isfinite().all() and expected.isfinite().all()):
        return float("inf")
    if expected.numel() == 0:
        return 0.0
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-3))


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
            reflections the candidate's own ``equivariance_error`` counts where it is larger: what is sampled on a
            grid is symmetric only to that.

    Raises:
        AssertionError: a symmetry is broken; the message lists which, in which output, and by how much.
    """
    errors = equivariance_errors(candidate, batch, symmetries=symmetries, samples=samples, seed=seed)
    if tolerance is None:
        tolerance = 1e-9 if _dtype(candidate, batch) == torch.float64 else 1e-4
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
