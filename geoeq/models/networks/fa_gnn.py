"""FA-GNN: the graph network of the N-body experiment of frame averaging, with frames in every layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from e3nn import o3
from torch import Tensor, nn
from torch_geometric.data import Data

from geoeq import kernels
from geoeq.errors import InputError, check_sizes
from geoeq.geometry.frames import Frames, pca_frames
from geoeq.graph import Graph
from geoeq.layers.inputs.coordinates import centred_vectors
from geoeq.layers.inputs.embedding import EdgeInput, NodeInput
from geoeq.layers.layer import Group
from geoeq.models.heads.head import Head
from geoeq.models.heads.scalar_heads import GraphScalar
from geoeq.models.heads.vector_heads import Positions
from geoeq.models.networks.gnn import GNN

__all__ = ["FAGNN"]

#: number of frames of a graph: all signs of three axes.
COPIES = 8


class FAGNN(GNN):
    """Plain graph network that is averaged over frames after every layer, not only at the end.

    A layer sees each graph from the 8 frames of its principal axes. Its C outputs are read as vectors (C / 3 of them,
    or fewer beside scalars), rotated back and averaged, which makes them vectors of the graph; their own principal axes
    are the frames of the next layer. The symmetry is the same as of ``FrameAveraging`` with "full": outputs jump where
    two principal moments cross, here also those of the latent vectors of each layer.

    Args:
        heads: heads of the predicted quantities, for example ``[Positions()]``.
        width: number C of channels.
        layers: number of message-passing layers.
        scalars: number of channels that are averaged as scalars; the others are vectors, of three channels each.
        cutoff, node_inputs, features_width, edge_inputs, edge_attr_width, num_basis, velocity, elements: see ``GNN``.

    Shapes:
        Positions in Å (or dimensionless throughout). Features ``Cx0e + 1x1o``: the channels of the
        last layer, averaged over frames, and one vector decoded in each frame.

    Raises:
        InputError: the number of channels beside the scalars is not a multiple of three, or an input is unknown, or a
            number is out of range.
        CellError: a structure is periodic (see ``centred_vectors``).

    Source:
        Puny et al., ICLR 2022, arXiv:2110.03336, section 5.3, and the published code (preset "nbody"). Differs: the
        first frames depend on velocities too; the decoded vector is added to each position, not to the centroid;
        derivatives go through the frames, which the published code keeps fixed; axes come in descending order.
    """

    group: Group = "E(3)"

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "nbody": {
            "width": 60,
            "layers": 4,
            "node_inputs": [],
            "edge_inputs": ["charge_product", "square_distance"],
            "velocity": True,
        },
    }

    def __init__(
        self,
        heads: Sequence[Head],
        width: int = 60,
        layers: int = 4,
        scalars: int = 0,
        cutoff: float | None = None,
        node_inputs: Sequence[NodeInput] = ("element",),
        features_width: int = 0,
        edge_inputs: Sequence[EdgeInput] = ("square_distance",),
        edge_attr_width: int = 0,
        num_basis: int = 8,
        velocity: bool = False,
        elements: Sequence[int] | None = None,
    ) -> None:
        check_sizes(self, width=width)
        check_sizes(self, least=0, scalars=scalars)
        if not 0 <= scalars < width or (width - scalars) % 3:
            raise InputError(f"FAGNN: width - scalars is {width - scalars}; it must be a positive multiple of 3.")
        inputs = node_inputs, features_width, edge_inputs, edge_attr_width, num_basis, velocity
        super().__init__(heads, width, layers, cutoff, *inputs, elements)
        self.scalars = scalars
        self.decoder = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 3))

    @staticmethod
    def features_irreps(width: int) -> o3.Irreps:
        return o3.Irreps([(width, "0e"), (1, "1o")])

    @classmethod
    def example(cls) -> Self:
        return cls([GraphScalar("energy"), Positions()], width=14, layers=2, scalars=2, cutoff=4.0)

    def encode(self, data: Data, graph: Graph) -> Tensor:
        graph = dataclasses.replace(graph, edge_attr=self.edge_embedding(data, graph))
        copies, dtype = _copies(graph), graph.positions.dtype
        vectors = centred_vectors(data, graph, self.velocity)  # [N, 1 or 2, 3]
        frames = _frames(vectors, graph)
        seen = _seen(vectors, frames, graph)  # [8, N, 1 or 2, 3]
        x = torch.cat([self.embedding(data, copy) for copy in seen])  # [8 N, C]
        for layer in self.layers[:-1]:
            x = layer(x, copies).to(dtype).unflatten(0, (COPIES, -1))  # [8, N, C]
            scalars, latent = x[..., : self.scalars].mean(0), x[..., self.scalars :].unflatten(-1, (-1, 3))
            vectors = _centred(_averaged(latent, frames, graph), graph)
            frames = _frames(vectors, graph)
            latent = _seen(vectors, frames, graph).flatten(2)  # [8, N, C - scalars]
            x = torch.cat([scalars.expand(COPIES, -1, -1), latent], dim=-1).flatten(0, 1)
        x = self.layers[-1](x, copies).to(dtype)
        decoded = self.decoder(x).to(dtype).unflatten(0, (COPIES, -1)).unsqueeze(2)  # [8, N, 1, 3]
        vector = _averaged(decoded, frames, graph).flatten(1)  # [N, 3]
        return torch.cat([x.unflatten(0, (COPIES, -1)).mean(0), vector], dim=-1)


def _copies(graph: Graph) -> Graph:
    """Return ``COPIES`` copies of the graph, one after the other, with all that layers of invariants use."""
    edges, nodes = len(graph.sender), graph.num_nodes
    copy = torch.arange(COPIES, device=graph.sender.device)

    def shifted(index: Tensor, by: int) -> Tensor:
        return (index + by * copy.unsqueeze(1)).flatten()

    def repeated(values: Tensor) -> Tensor:
        return values.repeat(COPIES, *[1] * (values.dim() - 1))

    ends = [shifted(pointers[:-1], by) for pointers, by in ((graph.row_pointers, edges), (graph.ptr, nodes))]
    return dataclasses.replace(
        graph,
        sender=shifted(graph.sender, nodes),
        receiver=shifted(graph.receiver, nodes),
        row_pointers=torch.cat([ends[0], ends[0].new_tensor([COPIES * edges])]),
        batch=shifted(graph.batch, graph.num_graphs),
        ptr=torch.cat([ends[1], ends[1].new_tensor([COPIES * nodes])]),
        num_graphs=COPIES * graph.num_graphs,
        vectors=repeated(graph.vectors),
        lengths=repeated(graph.lengths),
        harmonics=repeated(graph.harmonics),
        degree=repeated(graph.degree),
        positions=repeated(graph.positions),
        edge_attr=None if graph.edge_attr is None else repeated(graph.edge_attr),
        numbers=None if graph.numbers is None else repeated(graph.numbers),
    )


def _frames(vectors: Tensor, graph: Graph) -> Frames:
    """Return the frames of all vectors [N, V, 3] of each graph."""
    owner = graph.batch.repeat_interleave(vectors.shape[1])
    return pca_frames(vectors.flatten(0, 1), owner, vectors.new_zeros(graph.num_graphs, 3), "E(3)")


def _rotations(frames: Frames, graph: Graph) -> Tensor:
    """Return the frames [N, 8, 3, 3] of the graph of each node."""
    return kernels.gather(frames.rotations.unflatten(0, (-1, COPIES)), graph.batch)


def _seen(vectors: Tensor, frames: Frames, graph: Graph) -> Tensor:
    """Return vectors [N, V, 3] as seen from each frame, [8, N, V, 3]."""
    return torch.einsum("nvi,nfij->fnvj", vectors, _rotations(frames, graph))


def _averaged(vectors: Tensor, frames: Frames, graph: Graph) -> Tensor:
    """Rotate vectors [8, N, V, 3] back from the frames and average them, [N, V, 3].

    Of linear structures only the components along the line remain.
    """
    kept = torch.stack([frames.on_axis, *[frames.on_axis * frames.off_axis] * 2], dim=-1)  # [8 G, 3], the pole first
    kept = kernels.gather(kept.unflatten(0, (-1, COPIES)), graph.batch)  # [N, 8, 3]
    return torch.einsum("fnvj,nfj,nfij->nvi", vectors, kept, _rotations(frames, graph)) / COPIES


def _centred(vectors: Tensor, graph: Graph) -> Tensor:
    """Subtract the mean of all vectors of a graph, as published."""
    mean = kernels.segment_mean(vectors.mean(1), graph.batch, graph.num_graphs)  # [G, 3]
    return vectors - kernels.gather(mean, graph.batch).unsqueeze(1)
