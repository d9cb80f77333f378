"""Position-orientation network with attributes: PONITA."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self, get_args

import torch
from e3nn import o3
from torch import Tensor, nn
from torch_geometric.data import Data

from geoeq.errors import InputError, unknown_name
from geoeq.geometry.rotations import random_rotations
from geoeq.graph import Graph
from geoeq.layers.inputs.embedding import EdgeEmbedding, EdgeInput, IrrepsEmbedding, NodeInput
from geoeq.layers.ponita import Invariants, OrientationKernels, PonitaLayer
from geoeq.layers.sphere.sphere_points import spread_points
from geoeq.models.heads import GraphScalar, NodeVector
from geoeq.models.heads.head import Head
from geoeq.models.model import Model
from geoeq.models.published.parameters import fill_parameters
from geoeq.models.published.ponita_weights import reference_arguments, reference_parameters

__all__ = ["PONITA", "Orientations"]

#: "random": in training, each graph's orientations are turned at random, anew in each pass.
Orientations = Literal["fixed", "random"]


class PONITA(Model):
    """Fibre-bundle network of Fast, Expressive SE(n) Equivariant Networks: features at positions and orientations.

    A node has C channels in each of P directions, the same for all nodes. Symmetric to an error only, which falls with
    P; exactly symmetric where P is 0 (messages see distances alone, and there are no vectors).

    Args:
        heads: what is predicted, for example ``[GraphScalar("energy")]``.
        channels: number C of channels.
        layers: number of rounds of messages.
        num_orientations: number P of directions, none or at least 4.
        orientations: "fixed", or "random": turned at random in training, for each graph and pass anew.
        invariants: of an edge and an orientation, as for ``OrientationKernels``.
        basis_width: number of functions that kernels are made of.
        degree: of the polynomials of invariants.
        widening: hidden channels of a layer, as a multiple of C.
        layer_scale: start of the factors of what layers add; None leaves them out.
        scalars, vectors: number of scalars and vectors that heads see, by default C of each.
        every_layer: heads see the mean over layers of their read-outs; False the last alone.
        cutoff: in Å; messages fall smoothly to zero there. None takes ``data.edge_index``, or connects all atoms of a
            graph.
        node_inputs: what a node is: "element", "charge", "speed", "features" (``data.x``).
        features_irreps: how ``data.x`` turns; vectors enter by their components along orientations.
        velocity: take ``data.vel`` as a vector.
        edge_inputs: what an edge has besides its invariants, as for ``EdgeEmbedding``.
        edge_attr_width: number of columns of ``data.edge_attr``.
        elements: atomic numbers that the model knows; None for any.

    Shapes:
        Positions in Å (or dimensionless throughout). Features for heads are ``Sx0e + Vx1o``, means over orientations.

    Raises:
        InputError: an option is none of those above, or there are vectors without orientations.

    Source:
        Bekkers et al., ICLR 2024, arXiv:2310.02970. Differs: the orientations are a fixed arrangement, not
        drawn anew; the invariants of an edge are smooth unless "perpendicular"; nodes are not given by features alone,
        and edges may have attributes; kernels are not rescaled by the first batch. Vectors are means over
        orientations of weights times the orientation, as published.
    """

    points: Tensor

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "qm9": {"channels": 128, "layers": 5, "num_orientations": 0, "basis_width": 256, "degree": 3},
        "md17": {"channels": 128, "layers": 5, "num_orientations": 20, "basis_width": 256, "degree": 3},
        "nbody": {"channels": 128, "layers": 5, "num_orientations": 20, "basis_width": 256, "degree": 3},
    }

    def __init__(
        self,
        heads: Sequence[Head],
        channels: int = 128,
        layers: int = 5,
        num_orientations: int = 20,
        orientations: Orientations = "fixed",
        invariants: Invariants = "length",
        basis_width: int = 128,
        degree: int = 2,
        widening: int = 4,
        layer_scale: float | None = None,
        scalars: int | None = None,
        vectors: int | None = None,
        every_layer: bool = True,
        cutoff: float | None = None,
        node_inputs: Sequence[NodeInput] = ("element",),
        features_irreps: str = "",
        velocity: bool = False,
        edge_inputs: Sequence[EdgeInput] = (),
        edge_attr_width: int = 0,
        elements: Sequence[int] | None = None,
    ) -> None:
        if orientations not in get_args(Orientations):
            raise InputError(unknown_name("kind of orientations", orientations, get_args(Orientations)))
        if num_orientations in (1, 2, 3) or num_orientations < 0:
            raise InputError(f"PONITA needs 4 orientations or more, or none (0), not {num_orientations}.")
        oriented = num_orientations > 0
        self.scalars = channels if scalars is None else scalars
        self.vectors = (channels if oriented else 0) if vectors is None else vectors
        if self.vectors and not oriented:
            raise InputError("PONITA without orientations gives no vectors: leave them out, or take orientations.")
        super().__init__(heads, o3.Irreps(f"{self.scalars}x0e + {self.vectors}x1o"), cutoff, elements=elements)
        self.channels, self.num_orientations, self.orientations = channels, num_orientations, orientations
        points = spread_points(num_orientations).clone() if oriented else torch.zeros(1, 3, dtype=torch.float64)
        self.register_buffer("points", points)
        irreps = o3.Irreps(f"{channels}x0e" + (f" + {channels}x1o" if oriented else ""))
        self.embedding = IrrepsEmbedding(irreps, node_inputs, o3.Irreps(features_irreps), velocity)
        self.edge_embedding = EdgeEmbedding(edge_inputs, edge_attr_width, cutoff=cutoff)
        self.kernels = OrientationKernels(
            basis_width, channels, degree, oriented, invariants, self.edge_embedding.width, cutoff
        )
        count = max(num_orientations, 1)
        self.layers = nn.ModuleList(
            PonitaLayer(channels, basis_width, count, widening, layer_scale) for _ in range(layers)
        )
        read = range(layers) if every_layer else range(layers - 1, layers)
        self.readouts = nn.ModuleDict({str(k): nn.Linear(channels, self.scalars + self.vectors) for k in read})

    @property
    def equivariance_error(self) -> float:
        """How far vectors may change under rotation where weights are large (measured: docs/families/ponita.md)."""
        if self.num_orientations == 0:
            return 0.0
        return (150 if self.arguments["invariants"] == "length" else 400) / self.num_orientations**2

    @classmethod
    def example(cls) -> Self:
        heads = [GraphScalar("energy"), NodeVector("forces")]
        return cls(heads, channels=8, layers=2, num_orientations=32, basis_width=8, widening=2, cutoff=4.0)

    def encode(self, data: Data, graph: Graph) -> Tensor:
        graph = dataclasses.replace(graph, edge_attr=self.edge_embedding(data, graph))
        points = self.points.to(graph.vectors.dtype)  # [P, 3]
        turn = self._turn(graph)
        vectors = graph.vectors if turn is None else _turned(graph.vectors, turn[graph.batch[graph.receiver]])
        basis = self.kernels(vectors, points, graph)
        turn = None if turn is None else turn[graph.batch]  # [N, 3, 3]

        x = self._lift(self.embedding(data), points, turn)  # [N, P, C]
        moments = torch.cat([torch.ones_like(points[:, :1]), points], dim=-1) / len(points)  # [P, 4]
        read = x.new_zeros(x.shape[0], 4, self.scalars + self.vectors)
        for k, layer in enumerate(self.layers):
            x = layer(x, basis, graph)
            if str(k) in self.readouts:
                read = read + self._read(x, moments, self.readouts[str(k)]) / len(self.readouts)  # type: ignore[arg-type]
        vectors = read[:, 1:, self.scalars :].transpose(1, 2)  # [N, V, 3]
        if turn is not None:
            vectors = vectors @ turn  # back from the frame of the orientations
        return torch.cat([read[:, 0, : self.scalars], vectors.flatten(1)], dim=-1)

    def _read(self, x: Tensor, moments: Tensor, linear: nn.Linear) -> Tensor:
        """Means over orientations of a linear map of the features, and of the map times the orientation, [N, 4, S + V].

        The map acts on the means of the features, of which there are four in place of P.
        """
        with torch.autocast(x.device.type, enabled=False):  # a vector is what differences of features leave
            means = torch.einsum("npc,pd->ndc", x, moments)
        return means @ linear.weight.T + moments.sum(0).unsqueeze(-1) * linear.bias

    def _turn(self, graph: Graph) -> Tensor | None:
        """A rotation of each graph [G, 3, 3] into the frame of its orientations."""
        if self.orientations == "fixed" or not self.training:
            return None
        return random_rotations(graph.num_graphs, dtype=graph.vectors.dtype).to(graph.vectors.device)

    def _lift(self, x: Tensor, points: Tensor, turn: Tensor | None) -> Tensor:
        x = x.to(points.dtype)
        scalars, rest = x[:, : self.channels], x[:, self.channels :]
        lifted = scalars.unsqueeze(1).expand(-1, len(points), -1)
        if not rest.shape[1]:
            return lifted
        vectors = rest.reshape(x.shape[0], self.channels, 3)
        if turn is not None:
            vectors = vectors @ turn.transpose(1, 2)
        return lifted + torch.einsum("ncd,pd->npc", vectors, points)

    @classmethod
    def from_reference(cls, state_dict: Mapping[str, Tensor], **hyperparameters: Any) -> Self:
        """The authors' fibre-bundle network, from its parameters under their names and its own hyperparameters.

        ``data.x`` takes its scalars; ``encode`` gives its scalars and vectors, and there are no heads. Edges are those
        within its radius. The published code draws its orientations when the network is made: where the state
        dict has none ("ori_grid"), ours are taken.

        Args:
            state_dict: the authors' parameters and buffers.
            hyperparameters: input_dim, hidden_dim, output_dim, num_layers, radius, and output_dim_vec, num_ori,
                basis_dim, degree, widening_factor, layer_scale, multiple_readouts, task_level, lift_graph.

        Raises:
            CheckpointError: a hyperparameter is unknown, missing or not supported, or a parameter is missing, left
                over or of another shape.
        """
        arguments = reference_arguments(state_dict, hyperparameters)
        model = cls(**arguments)
        parameters = reference_parameters(state_dict, arguments)
        fill_parameters(model, parameters)
        if "points" in parameters:
            model.points.copy_(parameters["points"])
        return model.to(next(iter(state_dict.values())).dtype)


def _turned(vectors: Tensor, rotations: Tensor) -> Tensor:
    return (rotations @ vectors.unsqueeze(-1)).squeeze(-1)
