"""PONITA: position-orientation network with attributes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self, get_args

import torch
from e3nn import o3
from torch import Tensor, nn
from torch_geometric.data import Data

from geoeq.errors import InputError, check_name, check_sizes
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

#: "random": in training, the orientations of each graph are rotated at random in each pass.
Orientations = Literal["fixed", "random"]


class PONITA(Model):
    """Fibre-bundle network: features at positions and orientations.

    A node has C channels in each of P directions, the same for all nodes. The network is equivariant only up to an
    error, which falls with P; it is exactly equivariant for P = 0 (messages depend only on distances, and there are no
    vectors).

    Args:
        heads: heads of the predicted quantities, for example ``[GraphScalar("energy")]``.
        channels: number C of channels.
        layers: number of message-passing layers.
        num_orientations: number P of directions, 0 or at least 4.
        orientations: "fixed", or "random", rotated at random in training for each graph and pass.
        invariants: invariants of an edge and an orientation, see ``OrientationKernels``.
        basis_width: number of basis functions of the kernels.
        degree: degree of the polynomials of invariants.
        widening: number of hidden channels of a layer, as a multiple of C.
        layer_scale: initial value of the factors of the layers' outputs; None leaves these factors out.
        scalars, vectors: number of scalars and vectors for the heads, by default C of each.
        every_layer: give the heads the mean of the read-outs of all layers; False gives only the last.
        cutoff: cutoff radius in Å; messages decay smoothly to zero there. None takes ``data.edge_index``, or connects
            all atoms of a graph.
        node_inputs: inputs of a node: "element", "charge", "speed", "features" (``data.x``).
        features_irreps: irreps of ``data.x``; vectors enter by their components along the orientations.
        velocity: use ``data.vel`` as a vector input.
        edge_inputs: inputs of an edge besides its invariants, see ``EdgeEmbedding``.
        edge_attr_width: number of columns of ``data.edge_attr``.
        elements: atomic numbers that the model accepts; None for any.

    Shapes:
        Positions in Å (or dimensionless throughout). Features for the heads are ``Sx0e + Vx1o``, means over
        orientations.

    Raises:
        InputError: an option is unknown, or vectors are requested without orientations, or a number is out of range.

    Source:
        Bekkers et al., ICLR 2024, arXiv:2310.02970. Differs: the orientations are a fixed arrangement, not
        random; the invariants of an edge are smooth unless "perpendicular"; nodes may have inputs other than features,
        and edges attributes; kernels are not rescaled by the first batch. Vectors are means over orientations of
        weights times the orientation, as published.
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
        check_sizes(self, channels=channels, layers=layers, basis_width=basis_width, degree=degree, widening=widening)
        check_sizes(self, least=0, scalars=scalars, vectors=vectors, edge_attr_width=edge_attr_width)
        check_name("kind of orientations", orientations, get_args(Orientations))
        if num_orientations in (1, 2, 3) or num_orientations < 0:
            raise InputError(f"PONITA: num_orientations is {num_orientations}; it must be 4 or more, or 0 for none.")
        oriented = num_orientations > 0
        self.scalars = channels if scalars is None else scalars
        self.vectors = (channels if oriented else 0) if vectors is None else vectors
        if self.vectors and not oriented:
            raise InputError(
                "PONITA without orientations has no vectors: set vectors=0, or num_orientations to 4 or more."
            )
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
        """Bound of the error of vectors under rotations with large weights (measured: docs/families/ponita.md)."""
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
        rotation = self._random_rotation(graph)
        vectors = graph.vectors
        if rotation is not None:
            vectors = (rotation[graph.batch[graph.receiver]] @ vectors.unsqueeze(-1)).squeeze(-1)
            rotation = rotation[graph.batch]  # [N, 3, 3]
        basis = self.kernels(vectors, points, graph)

        x = self._lift(self.embedding(data), points, rotation)  # [N, P, C]
        moments = torch.cat([torch.ones_like(points[:, :1]), points], dim=-1) / len(points)  # [P, 4]
        read = x.new_zeros(x.shape[0], 4, self.scalars + self.vectors)
        for k, layer in enumerate(self.layers):
            x = layer(x, basis, graph)
            if str(k) in self.readouts:
                readout: nn.Linear = self.readouts[str(k)]  # type: ignore[assignment]
                read = read + self._read(x, moments, readout) / len(self.readouts)
        vectors = read[:, 1:, self.scalars :].transpose(1, 2)  # [N, V, 3]
        if rotation is not None:
            vectors = vectors @ rotation  # back from the frame of the orientations
        return torch.cat([read[:, 0, : self.scalars], vectors.flatten(1)], dim=-1)

    def _read(self, x: Tensor, moments: Tensor, linear: nn.Linear) -> Tensor:
        """Return means over orientations of a linear map of the features, and of the map times the orientation.

        The map acts on the four means of the features instead of on P orientations. Returns [N, 4, S + V].
        """
        with torch.autocast(x.device.type, enabled=False):  # a vector is what differences of features leave
            means = torch.einsum("npc,pd->ndc", x, moments)
        return means @ linear.weight.T + moments.sum(0).unsqueeze(-1) * linear.bias

    def _random_rotation(self, graph: Graph) -> Tensor | None:
        """Return a rotation of each graph [G, 3, 3] into the frame of its orientations, or None for the identity."""
        if self.orientations == "fixed" or not self.training:
            return None
        return random_rotations(graph.num_graphs, dtype=graph.vectors.dtype).to(graph.vectors.device)

    def _lift(self, x: Tensor, points: Tensor, rotation: Tensor | None) -> Tensor:
        """Return features [N, P, C] from scalars, and from vectors by their components along the orientations."""
        x = x.to(points.dtype)
        scalars, vectors = x[:, : self.channels], x[:, self.channels :]
        lifted = scalars.unsqueeze(1).expand(-1, len(points), -1)
        if not vectors.shape[1]:
            return lifted
        vectors = vectors.reshape(x.shape[0], self.channels, 3)
        if rotation is not None:
            vectors = vectors @ rotation.transpose(1, 2)
        return lifted + torch.einsum("ncd,pd->npc", vectors, points)

    @classmethod
    def from_reference(cls, state_dict: Mapping[str, Tensor], **hyperparameters: Any) -> Self:
        """Return the authors' fibre-bundle network, from parameters under their names and its own hyperparameters.

        ``data.x`` holds its input scalars; ``encode`` returns its scalars and vectors, and there are no heads. Edges
        are those within its radius. The published code draws its orientations when the network is created; if the
        state dict does not contain them ("ori_grid"), geoeq's are used.

        Args:
            hyperparameters: input_dim, hidden_dim, output_dim, num_layers, radius, and output_dim_vec, num_ori,
                basis_dim, degree, widening_factor, layer_scale, multiple_readouts, task_level, lift_graph.
        """
        arguments = reference_arguments(state_dict, hyperparameters)
        model = cls(**arguments)
        parameters = reference_parameters(state_dict, arguments)
        fill_parameters(model, parameters)
        if "points" in parameters:
            model.points.copy_(parameters["points"])
        return model.to(next(iter(state_dict.values())).dtype)
