"""Group elements, drawn uniformly, and what they do to structures and to outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from e3nn import o3
from torch import Tensor
from torch_geometric.data import Data

from geoeq.constants import default_dtype
from geoeq.fields import Level, field
from geoeq.rotations import random_rotations

__all__ = ["Element", "Output", "Symmetry", "named_output", "random_element", "relative_error", "turned"]

Symmetry = Literal["rotation", "reflection", "translation", "permutation", "batch"]

#: outputs smaller than this are compared to it, not to themselves.
SMALLEST = 1e-3

_NODE_KEYS = ("z", "pos", "vel", "charge", "x", "batch")

#: rows and columns of a stress in ASE's order of six: xx, yy, zz, yz, xz, xy.
_VOIGT = torch.tensor([[0, 5, 4], [5, 1, 3], [4, 3, 2]])


@dataclass(frozen=True)
class Output:
    """A tensor with how it turns and where it lives.

    Attributes:
        value: one row a graph, node or edge.
        level: which of these.
        irreps: of a row; None for Cartesian matrices [.., 3, 3], such as a stress.
        translates: whether it moves with the origin.
    """

    value: Tensor
    level: Level
    irreps: o3.Irreps | None
    translates: bool = False


def named_output(name: str, value: Tensor) -> Output:
    """An output by its name in ``geoeq.fields``; a stress, also in ASE's order of six, becomes matrices [G, 3, 3].

    Raises:
        FieldError: there is no such field.
    """
    known = field(name)
    if name == "stress":
        flat = value.reshape(len(value), -1)
        matrix = flat[:, _VOIGT.flatten().to(flat.device)] if flat.shape[1] == 6 else flat
        return Output(matrix.reshape(-1, 3, 3), known.level, None)
    return Output(value, known.level, o3.Irreps(known.irreps), known.translates)


def turned(rotation: Tensor, irreps: o3.Irreps, value: Tensor) -> Tensor:
    """Features after a rotation, or a rotation with the inversion.

    Shapes:
        rotation: [3, 3], of determinant 1 or -1. value: [.., irreps.dim], or of any shape where all irreps are 0e.
    """
    if all(ir.l == 0 and ir.p == 1 for _, ir in irreps):
        return value
    with default_dtype(torch.float64):  # under float32, e3nn's matrices are wrong by 7e-7
        matrix: Tensor = irreps.D_from_matrix(rotation)
    flat = value.reshape(value.shape[0], irreps.dim)
    return (flat @ matrix.T.to(value)).reshape(value.shape)


@dataclass(frozen=True)
class Element:
    """One group element, with a new order of the nodes.

    Shapes:
        rotation: [3, 3], of determinant 1 or -1. translation: [3] Å. order: [N], what is in each place afterwards.
    """

    rotation: Tensor
    translation: Tensor
    order: Tensor

    def on_data(self, data: Data, irreps_x: o3.Irreps) -> Data:
        """A structure after it, whose ``x`` has these irreps."""
        moved = data.clone()
        vector = o3.Irreps("1o")
        moved.pos = turned(self.rotation, vector, data.pos) + self.translation.to(data.pos)
        if "x" in data:
            moved.x = turned(self.rotation, irreps_x, data.x)
        if "vel" in data:
            moved.vel = turned(self.rotation, vector, data.vel)
        if "cell" in data:
            moved.cell = turned(self.rotation, vector, data.cell.reshape(-1, 3)).reshape(data.cell.shape)
        if "edge_index" in data:
            moved.edge_index = torch.argsort(self.order)[data.edge_index]
        for key in _NODE_KEYS:
            if key in data:
                moved[key] = moved[key][self.order]
        return moved

    def on_output(self, output: Output) -> Tensor:
        """What an output has to be afterwards."""
        if output.irreps is None:
            rotation = self.rotation.to(output.value)
            value = rotation @ output.value @ rotation.T
        else:
            value = turned(self.rotation, output.irreps, output.value)
        if output.translates:
            value = value + self.translation.to(value)
        return value[self.order] if output.level == "node" else value


def random_element(symmetry: Symmetry, data: Data, generator: torch.Generator) -> Element:
    """A random element: rotations uniform, reflections a uniform rotation with the inversion, translations of some Å,
    permutations uniform among those that leave each node in its graph."""
    rotation, translation = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    order = torch.arange(data.num_nodes or 0)
    if symmetry in ("rotation", "reflection"):
        rotation = random_rotations(1, generator, torch.float64)[0]
        rotation = rotation if symmetry == "rotation" else -rotation
    elif symmetry == "translation":
        translation = 3 * torch.randn(3, generator=generator, dtype=torch.float64)
    else:
        shuffled = torch.randperm(len(order), generator=generator)
        order = shuffled[torch.argsort(data.batch[shuffled], stable=True)]
    return Element(rotation, translation, order)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest entry; infinite where shapes differ or a value is not finite."""
    if found.shape != expected.shape or not (found.isfinite().all() and expected.isfinite().all()):
        return float("inf")
    if expected.numel() == 0:
        return 0.0
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=SMALLEST))
