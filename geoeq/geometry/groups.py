"""Random group elements, and their action on structures and outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from e3nn import o3
from torch import Tensor
from torch_geometric.data import Data

from geoeq.constants import default_dtype
from geoeq.fields import Level, field
from geoeq.geometry.frames import axis_number
from geoeq.geometry.rotations import finite_group, irreps_to_matrix, is_finite_group, random_rotations, random_turns
from geoeq.pointers import batch_from_ptr, graph_pointers

__all__ = [
    "Element",
    "Output",
    "Symmetry",
    "Turns",
    "named_output",
    "random_element",
    "relative_error",
    "rotated",
    "symmetries_of",
    "turns_of",
]

Symmetry = Literal["rotation", "reflection", "translation", "permutation", "batch"]

#: Set from which rotations are drawn: all (None), those about a coordinate axis, or a finite group [F, 3, 3].
Turns = int | Tensor | None

#: Outputs smaller than this are compared with this value instead of their own size.
SMALLEST = 1e-3

_NODE_KEYS = ("z", "pos", "vel", "charge", "x", "tags", "batch")

#: Symmetries that a group lacks; E(3) lacks none.
_LACKING: dict[str, tuple[Symmetry, ...]] = {
    "SE(3)": ("reflection",),
    "SE(2)": ("reflection",),
    "O(3)": ("translation",),
    "SO(3)": ("reflection", "translation"),
    "T(3)": ("rotation", "reflection"),
    "1": ("rotation", "reflection", "translation"),
}


@dataclass(frozen=True)
class Output:
    """A tensor with its level and its transformation under rotations and translations.

    Attributes:
        value: tensor with one row per graph, node or edge.
        level: "graph", "node" or "edge".
        irreps: irreps of a row; None for Cartesian matrices [.., 3, 3], such as a stress.
        translates: whether the value changes with the origin, as positions do.
    """

    value: Tensor
    level: Level
    irreps: o3.Irreps | None
    translates: bool = False


def named_output(name: str, value: Tensor) -> Output:
    """Return the output of this name in ``geoeq.fields``; a stress, even in irreps 0e + 2e, becomes [G, 3, 3].

    Raises:
        FieldError: no field has this name.
    """
    known = field(name)
    if name == "stress":
        matrix = irreps_to_matrix(value) if value.shape[1:] == (6,) else value
        return Output(matrix.reshape(-1, 3, 3), known.level, None)
    return Output(value, known.level, o3.Irreps(known.irreps), known.translates)


def rotated(rotation: Tensor, irreps: o3.Irreps, value: Tensor) -> Tensor:
    """Return features after a rotation, or a rotation combined with the inversion.

    Shapes:
        rotation: [3, 3], of determinant 1 or -1. value: [.., irreps.dim], or any shape if all irreps are 0e.
    """
    if all(ir.l == 0 and ir.p == 1 for _, ir in irreps):
        return value
    with default_dtype(torch.float64):  # under float32, e3nn's matrices have errors of 7e-7
        matrix: Tensor = irreps.D_from_matrix(rotation)
    flat = value.reshape(value.shape[0], irreps.dim)
    return (flat @ matrix.T.to(value)).reshape(value.shape)


@dataclass(frozen=True)
class Element:
    """One group element, including a permutation of the nodes.

    Shapes:
        rotation: [3, 3], of determinant 1 or -1. translation: [3] Å. order: [N], the old index of each new node.
    """

    rotation: Tensor
    translation: Tensor
    order: Tensor

    def on_data(self, data: Data, irreps_x: o3.Irreps) -> Data:
        """Return the transformed structure, whose ``x`` has these irreps."""
        moved = data.clone()
        vector = o3.Irreps("1o")
        moved.pos = rotated(self.rotation, vector, data.pos) + self.translation.to(data.pos)
        if "x" in data:
            moved.x = rotated(self.rotation, irreps_x, data.x)
        if "vel" in data:
            moved.vel = rotated(self.rotation, vector, data.vel)
        if "cell" in data:
            moved.cell = rotated(self.rotation, vector, data.cell.reshape(-1, 3)).reshape(data.cell.shape)
        if "edge_index" in data:
            moved.edge_index = torch.argsort(self.order)[data.edge_index]
        for key in _NODE_KEYS:
            if key in data:
                moved[key] = moved[key][self.order]
        return moved

    def on_output(self, output: Output) -> Tensor:
        """Return the output expected for the transformed structure."""
        if output.irreps is None:
            rotation = self.rotation.to(output.value)
            value = rotation @ output.value @ rotation.T
        else:
            value = rotated(self.rotation, output.irreps, output.value)
        if output.translates:
            value = value + self.translation.to(value)
        return value[self.order] if output.level == "node" else value


def symmetries_of(group: str) -> tuple[Symmetry, ...]:
    """Return the symmetries of a group: all for "E(3)", no reflections for "SE(3)", ...; permutations always included.

    A point group, such as "O", has the symmetries of its elements, and translations.
    """
    lacking = _LACKING.get(group, ())
    if is_finite_group(group):
        kinds = {"rotation": _others(finite_group(group), 1), "reflection": _others(finite_group(group), -1)}
        lacking = tuple(name for name, elements in kinds.items() if not len(elements))  # type: ignore[misc]
    return tuple(name for name in get_args(Symmetry) if name not in lacking)


def turns_of(candidate: object) -> Turns:
    """Return the rotations of the candidate's group: a coordinate axis, the elements of a point group, or None for all.

    Only "SE(2)" and "E(2)" have an axis.
    """
    group: str = getattr(candidate, "group", "E(3)")
    axis = getattr(candidate, "axis", None)
    if is_finite_group(group):
        return finite_group(group, axis or "z")
    return axis_number(group, axis) if group in ("SE(2)", "E(2)") else None


def random_element(symmetry: Symmetry, data: Data, generator: torch.Generator, turns: Turns = None) -> Element:
    """Draw a random group element.

    Rotations are uniform, reflections are a uniform rotation combined with the inversion, translations have a length of
    several Å, and permutations are uniform among those that keep each node in its graph. With an axis, rotations are
    about it and reflections in planes that contain it; elements of a finite group exclude the identity.
    """
    rotation, translation = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    order = torch.arange(data.num_nodes or 0, device=data.pos.device)
    if symmetry in ("rotation", "reflection"):
        rotation = _random_turn(symmetry == "reflection", generator, turns)
    elif symmetry == "translation":
        translation = 3 * torch.randn(3, generator=generator, dtype=torch.float64)
    else:
        shuffled = torch.randperm(len(order), generator=generator).to(order.device)
        graph = batch_from_ptr(graph_pointers(data), len(order))
        order = shuffled[torch.argsort(graph[shuffled], stable=True)]
    return Element(rotation, translation, order)


def _random_turn(reflected: bool, generator: torch.Generator, turns: Turns) -> Tensor:
    reflection = -torch.eye(3, dtype=torch.float64)
    if isinstance(turns, Tensor):
        chosen = _others(turns, -1 if reflected else 1)
        return chosen[int(torch.randint(len(chosen), (1,), generator=generator))]
    if turns is None:
        rotation = random_rotations(1, generator, torch.float64)[0]
    else:
        rotation = random_turns(1, torch.eye(3)[turns].tolist(), generator, torch.float64)[0]
        reflection = torch.eye(3, dtype=torch.float64)
        reflection[turns - 1, turns - 1] = -1
    return rotation @ reflection if reflected else rotation


def _others(elements: Tensor, sign: int) -> Tensor:
    """Return the elements with this determinant, except the identity, which is the first element."""
    return elements[1:][elements[1:].det().round() == sign]


def relative_error(value: Tensor, expected: Tensor) -> float:
    """Return the largest difference over the largest entry; infinite if shapes differ or a value is not finite."""
    if value.shape != expected.shape or not (value.isfinite().all() and expected.isfinite().all()):
        return float("inf")
    if expected.numel() == 0:
        return 0.0
    return float((value - expected).abs().max() / expected.abs().max().clamp(min=SMALLEST))
