"""Transform a batch of structures to frames, and rotate results back and average them."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
from e3nn import o3
from torch import Tensor
from torch_geometric.data import Batch

from geoeq.fields import FIELDS
from geoeq.geometry.frames.frames import Frames, has_translations
from geoeq.geometry.rotations import irreps_to_matrix, matrix_to_irreps, wigner_d
from geoeq.pointers import batch_from_ptr, graph_pointers

__all__ = ["Framed", "Images", "average", "between_images", "in_frames", "inputs_that_turn"]

#: Whether frames of a periodic structure depend on which images of its atoms are listed.
Images = Literal["any", "listed"]

#: Attributes that are handled by name instead of by their number of rows.
_HANDLED = ("pos", "vel", "cell", "pbc", "batch", "ptr", "edge_index")


class Framed(NamedTuple):
    """M copies of structures, one for each frame.

    Shapes:
        batch: M graphs with K nodes. frame: [K], the frame of each node. node: [K], the node of the input that each one
        copies.
    """

    batch: Batch
    frame: Tensor
    node: Tensor


def inputs_that_turn(data: Any, group: str, images: Images = "listed") -> tuple[Tensor, Tensor, Tensor]:
    """Return all vectors that a model may use: positions relative to the centroid, velocities, cell vectors.

    Args:
        data: structures.
        group: symmetry group; the origin is the centroid if it contains translations.
        images: "listed" takes positions as they are; "any" replaces those of periodic structures by vectors that are
            the same whichever image of an atom is listed (``between_images``).

    Shapes:
        Returns vectors [P, 3], their graphs [P], and the centroids [G, 3] (zero for groups without translations).
    """
    ptr, positions = graph_pointers(data), data.pos
    num_graphs = len(ptr) - 1
    batch = batch_from_ptr(ptr, len(positions))
    centroids = positions.new_zeros(num_graphs, 3)
    if has_translations(group):
        count = ptr.diff().clamp(min=1).unsqueeze(1).to(positions)
        centroids = centroids.index_add(0, batch, positions) / count
    relative = positions - centroids[batch]
    if images == "any" and getattr(data, "cell", None) is not None and getattr(data, "pbc", None) is not None:
        relative = between_images(relative, data.cell.reshape(-1, 3, 3), data.pbc.reshape(-1, 3), ptr)
    vectors, graphs = [relative], [batch]
    if getattr(data, "vel", None) is not None:
        vectors.append(data.vel)
        graphs.append(batch)
    if getattr(data, "cell", None) is not None:
        vectors.append(data.cell.reshape(-1, 3))
        graphs.append(torch.arange(num_graphs, device=ptr.device).repeat_interleave(3))
    return torch.cat(vectors), torch.cat(graphs), centroids


def between_images(positions: Tensor, cell: Tensor, pbc: Tensor, ptr: Tensor) -> Tensor:
    """Return a vector of each atom that depends neither on the origin nor on the listed images, [N, 3].

    In periodic directions, with fractional coordinates s and cell vectors a, it is the mean over the atoms j of
    ``sin(2π (s_i - s_j)) a / 2π``, which is smooth, and close to the position relative to the centroid for atoms close
    to each other; in open directions it is the position as it is.
    """
    batch = batch_from_ptr(ptr, len(positions))
    vectors = cell.double() * pbc.unsqueeze(-1)  # [G, 3, 3]
    reciprocal = vectors.mT @ torch.linalg.inv(vectors @ vectors.mT + torch.diag_embed((~pbc).double()))
    fractions = torch.einsum("nx,nxk->nk", positions.double(), reciprocal[batch])
    open_part = positions - torch.einsum("nk,nkx->nx", fractions, vectors[batch]).to(positions.dtype)
    sine, cosine = (2 * math.pi * fractions).sin(), (2 * math.pi * fractions).cos()
    count = ptr.diff().clamp(min=1).unsqueeze(1)
    mean_sine, mean_cosine = (
        part.new_zeros(len(count), 3).index_add(0, batch, part) / count for part in (sine, cosine)
    )
    between = (sine * mean_cosine[batch] - cosine * mean_sine[batch]) / (2 * math.pi)  # sin(a - b)
    return open_part + torch.einsum("nk,nkx->nx", between, vectors[batch]).to(positions.dtype)


def in_frames(data: Any, frames: Frames) -> Framed:
    """Return each structure once per frame, with positions, velocities and cells in the coordinates of the frame.

    Attributes of nodes, edges and graphs are copied. A tensor belongs to nodes if its first dimension is the number of
    nodes, else to graphs if it is the number of graphs. Targets that are not invariant are omitted.
    """
    ptr, graph = graph_pointers(data), frames.graph
    num_nodes, num_graphs = len(data.pos), len(ptr) - 1
    node, frame, new_ptr = _rows(ptr, graph)
    batch = Batch(batch=frame, ptr=new_ptr)
    centred = data.pos[node] - frames.centroids[graph][frame]
    batch.pos = _rotated(centred, frames.rotations[frame])
    if getattr(data, "vel", None) is not None:
        batch.vel = _rotated(data.vel[node], frames.rotations[frame])
    if getattr(data, "cell", None) is not None:
        batch.cell = data.cell.reshape(-1, 3, 3)[graph] @ frames.rotations
    if getattr(data, "pbc", None) is not None:
        batch.pbc = data.pbc.reshape(-1, 3)[graph]
    edge = None
    if getattr(data, "edge_index", None) is not None:
        owner = batch_from_ptr(ptr, num_nodes)[data.edge_index[1]]  # [E]
        order = owner.argsort(stable=True)
        edges = torch.arange(num_graphs + 1, device=ptr.device)
        row, copy, _ = _rows(torch.searchsorted(owner[order], edges), graph)
        edge = order[row]
        batch.edge_index = data.edge_index[:, edge] + (new_ptr[:-1] - ptr[graph])[copy]
    for name, value in data:
        rotates = name in FIELDS and any(ir.l > 0 or ir.p < 0 for _, ir in o3.Irreps(FIELDS[name].irreps))
        if name in _HANDLED or rotates:
            continue
        rows = value.shape[0] if isinstance(value, Tensor) and value.dim() else None
        if name == "edge_cutoff":
            batch[name] = value.reshape(-1)[graph]
        elif name.startswith("edge_") and edge is not None and rows is not None:
            batch[name] = value[edge]
        elif rows == num_nodes:
            batch[name] = value[node]
        elif rows == num_graphs:
            batch[name] = value[graph]
        else:
            batch[name] = value
    return Framed(batch, frame, node)


def average(value: Tensor, irreps: str, frames: Frames, frame: Tensor, target: Tensor, num_rows: int) -> Tensor:
    """Rotate results in frames back, and sum them with the weights of the frames.

    Args:
        value: results in the coordinates of the frames.
        irreps: irreps of the results, in e3nn's notation.
        frames: the frames.
        frame: frame of each row of ``value``.
        target: row of the sum to which each row of ``value`` is added.
        num_rows: number of rows of the sum.

    Shapes:
        value: [K, ...]; symmetric matrices, such as a stress, as irreps [K, 6] or as [K, 3, 3]. frame, target: [K].
        Returns [num_rows, ...].
    """
    parts = o3.Irreps(irreps)
    if parts.dim == 6 and value.shape[1:] == (3, 3):
        return irreps_to_matrix(average(matrix_to_irreps(value), irreps, frames, frame, target, num_rows))
    flat = value.flatten(1) if value.dim() > 1 else value.unsqueeze(1)
    if any(ir.l > 0 or ir.p < 0 for _, ir in parts):
        flat = _rotated_back(flat, parts, frames, frame)
    flat = flat * frames.weights[frame].unsqueeze(1).to(flat.dtype)
    total = flat.new_zeros(num_rows, flat.shape[1]).index_add(0, target, flat)
    return total.reshape(num_rows, *value.shape[1:])


def _rows(ptr: Tensor, graph: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the rows of all copies: their rows in the input, the copy of each, and the first row of each copy."""
    count = ptr.diff()[graph]
    begin = torch.cat([count.new_zeros(1), count.cumsum(0)])
    copy = torch.repeat_interleave(torch.arange(len(graph), device=ptr.device), count)
    row = torch.arange(len(copy), device=ptr.device) + (ptr[graph] - begin[:-1])[copy]
    return row, copy, begin


def _rotated(vectors: Tensor, rotations: Tensor) -> Tensor:
    return (vectors.unsqueeze(1) @ rotations).squeeze(1)


def _rotated_back(flat: Tensor, irreps: o3.Irreps, frames: Frames, frame: Tensor) -> Tensor:
    """Rotate back by D(R), without the components that linear structures leave undefined; see ``Frames.off_axis``."""
    sign = frames.rotations.detach().det().sign()  # [M]
    blocks = wigner_d(frames.rotations * sign[:, None, None], irreps.lmax)
    pole = torch.eye(3, dtype=flat.dtype, device=flat.device)[frames.pole]
    rotated, start = [], 0
    for mul, ir in irreps:
        part = flat[:, start : start + mul * ir.dim].reshape(-1, mul, ir.dim)
        start += mul * ir.dim
        if ir.l > 0:
            # "norm" harmonics of the pole are the unit vector invariant under rotations about the pole.
            invariant = o3.spherical_harmonics(ir.l, pole, False, "norm")
            along = (part @ invariant).unsqueeze(-1) * invariant
            on_axis, off_axis = (value[frame][:, None, None] for value in (frames.on_axis, frames.off_axis))
            part = on_axis * (along + off_axis * (part - along))
            part = part @ blocks[ir.l][frame].mT
        if ir.p < 0:  # R is sign times a rotation; a negative sign is an inversion
            part = part * sign[frame][:, None, None]
        rotated.append(part.flatten(1))
    return torch.cat(rotated, dim=1)
