"""A batch of structures as it is seen from frames, and what is found there turned back and averaged."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from e3nn import o3
from torch import Tensor
from torch_geometric.data import Batch

from geoeq.fields import FIELDS
from geoeq.geometry.frames.frames import Frames, has_translations
from geoeq.geometry.rotations import irreps_to_matrix, matrix_to_irreps, wigner_d
from geoeq.pointers import batch_from_ptr, graph_pointers

__all__ = ["Framed", "average", "in_frames", "inputs_that_turn"]

#: attributes that are not copied by their size.
_OWN = ("pos", "vel", "cell", "pbc", "batch", "ptr", "edge_index")


class Framed(NamedTuple):
    """M structures, one for each frame.

    Shapes:
        batch: of M graphs and K nodes. frame: [K], whose copy a node is. node: [K], of which node of the input.
    """

    batch: Batch
    frame: Tensor
    node: Tensor


def inputs_that_turn(data: Any, group: str) -> tuple[Tensor, Tensor, Tensor]:
    """All vectors that a model may see: positions less their centroid, velocities, cell vectors.

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
    vectors, graphs = [positions - centroids[batch]], [batch]
    if getattr(data, "vel", None) is not None:
        vectors.append(data.vel)
        graphs.append(batch)
    if getattr(data, "cell", None) is not None:
        vectors.append(data.cell.reshape(-1, 3))
        graphs.append(torch.arange(num_graphs, device=ptr.device).repeat_interleave(3))
    return torch.cat(vectors), torch.cat(graphs), centroids


def in_frames(data: Any, frames: Frames) -> Framed:
    """Each structure once for each of its frames, with positions, velocities and cells as they look from there.

    Attributes of nodes, edges and graphs are copied; a tensor whose first dimension is the number of nodes belongs to
    nodes, else one of the number of graphs belongs to graphs. Targets that turn are left out.
    """
    ptr, graph = graph_pointers(data), frames.graph
    num_nodes, num_graphs = len(data.pos), len(ptr) - 1
    node, frame, new_ptr = _rows(ptr, graph)
    batch = Batch(batch=frame, ptr=new_ptr)
    turned = data.pos[node] - frames.centroids[graph][frame]
    batch.pos = _turned(turned, frames.rotations[frame])
    if getattr(data, "vel", None) is not None:
        batch.vel = _turned(data.vel[node], frames.rotations[frame])
    if getattr(data, "cell", None) is not None:
        batch.cell = data.cell.reshape(-1, 3, 3)[graph] @ frames.rotations
    if getattr(data, "pbc", None) is not None:
        batch.pbc = data.pbc.reshape(-1, 3)[graph]
    edge = None
    if getattr(data, "edge_index", None) is not None:
        owner = batch_from_ptr(ptr, num_nodes)[data.edge_index[1]]  # [E]
        order = owner.argsort(stable=True)
        edges = torch.arange(num_graphs + 1, device=ptr.device)
        place, copy, _ = _rows(torch.searchsorted(owner[order], edges), graph)
        edge = order[place]
        batch.edge_index = data.edge_index[:, edge] + (new_ptr[:-1] - ptr[graph])[copy]
    for name, value in data:
        turns = name in FIELDS and any(ir.l > 0 or ir.p < 0 for _, ir in o3.Irreps(FIELDS[name].irreps))
        if name in _OWN or turns:
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
    """What was found in each frame, turned back, times the weight of the frame, summed.

    Args:
        value: found in the frames.
        irreps: how it turns, in e3nn's notation.
        frames: the frames.
        frame: of each row of ``value``.
        target: the row of the result that each row of ``value`` is for.
        num_rows: of the result.

    Shapes:
        value: [K, ...]; symmetric matrices, such as a stress, as irreps [K, 6] or as [K, 3, 3]. frame, target: [K].
        Returns [num_rows, ...].
    """
    parts = o3.Irreps(irreps)
    if parts.dim == 6 and value.shape[1:] == (3, 3):
        return irreps_to_matrix(average(matrix_to_irreps(value), irreps, frames, frame, target, num_rows))
    flat = value.flatten(1) if value.dim() > 1 else value.unsqueeze(1)
    if any(ir.l > 0 or ir.p < 0 for _, ir in parts):
        flat = _back(flat, parts, frames, frame)
    flat = flat * frames.weights[frame].unsqueeze(1).to(flat.dtype)
    total = flat.new_zeros(num_rows, flat.shape[1]).index_add(0, target, flat)
    return total.reshape(num_rows, *value.shape[1:])


def _rows(ptr: Tensor, graph: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The rows of all copies: which row of the input, which copy, and where each copy begins."""
    count = ptr.diff()[graph]
    begin = torch.cat([count.new_zeros(1), count.cumsum(0)])
    copy = torch.repeat_interleave(torch.arange(len(graph), device=ptr.device), count)
    row = torch.arange(len(copy), device=ptr.device) + (ptr[graph] - begin[:-1])[copy]
    return row, copy, begin


def _turned(vectors: Tensor, rotations: Tensor) -> Tensor:
    return (vectors.unsqueeze(1) @ rotations).squeeze(1)


def _back(flat: Tensor, irreps: o3.Irreps, frames: Frames, frame: Tensor) -> Tensor:
    """Turned back by D(R), with what is open in linear structures taken out; see ``Frames.off_axis``."""
    sign = frames.rotations.detach().det().sign()  # [M]
    blocks = wigner_d(frames.rotations * sign[:, None, None], irreps.lmax)
    pole = torch.eye(3, dtype=flat.dtype, device=flat.device)[frames.pole]
    found, start = [], 0
    for mul, ir in irreps:
        part = flat[:, start : start + mul * ir.dim].reshape(-1, mul, ir.dim)
        start += mul * ir.dim
        if ir.l > 0:
            # "norm" harmonics of the pole are the unit vector that turns about the pole leave alone.
            still = o3.spherical_harmonics(ir.l, pole, False, "norm")
            along = (part @ still).unsqueeze(-1) * still
            on_axis, off_axis = (value[frame][:, None, None] for value in (frames.on_axis, frames.off_axis))
            part = on_axis * (along + off_axis * (part - along))
            part = part @ blocks[ir.l][frame].mT
        if ir.p < 0:  # R is sign times a rotation, and the sign is an inversion
            part = part * sign[frame][:, None, None]
        found.append(part.flatten(1))
    return torch.cat(found, dim=1)
