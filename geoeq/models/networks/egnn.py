"""EGNN: E(n)-equivariant graph neural network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from e3nn import o3
from torch import Tensor, nn
from torch_geometric.data import Data

from geoeq.errors import TensorError, check_positive, check_sizes
from geoeq.graph import Graph
from geoeq.layers.egnn import Count, EGNNLayer, Normalize
from geoeq.layers.inputs.embedding import EdgeEmbedding, EdgeInput, NodeEmbedding, NodeInput
from geoeq.models.heads import GraphScalar, Head, Positions
from geoeq.models.model import Model
from geoeq.models.published.egnn_weights import reference_arguments, reference_names
from geoeq.models.published.parameters import load_parameters

__all__ = ["EGNN"]


class EGNN(Model):
    """E(n)-equivariant graph neural network, for properties of molecules and for dynamics.

    Args:
        heads: heads of the predicted quantities, for example ``[GraphScalar("gap")]``.
        width: number C of channels.
        layers: number of message-passing layers.
        cutoff: cutoff radius in Å; None takes ``data.edge_index``, or connects all atoms of a graph as in the paper.
        node_inputs: inputs of a node: "element", "charge", "speed", "features" (``data.x``).
        features_width: number of columns of ``data.x``.
        edge_inputs: inputs of an edge besides its length: "square_distance" (of the input positions),
            "charge_product", "edge_attr", "bessel" (a Bessel basis of the input distance; needs a cutoff).
        edge_attr_width: number of columns of ``data.edge_attr``.
        num_basis: number of Bessel functions.
        velocity: use ``data.vel`` (the form of the network for N-body dynamics).
        attention, normalize, tanh, residual, update_positions, detach_norm, clamp, count: see ``EGNNLayer``.
        elements: atomic numbers that the model accepts; None for any.

    Shapes:
        Positions in Å (or dimensionless throughout), velocities in Å per unit of time.

    Raises:
        InputError: a number is out of range.

    Source:
        Satorras et al., ICML 2021, arXiv:2102.09844. Differs: elements are embedded by a table instead of
        one-hot vectors times powers of the charge; with a cutoff, messages decay smoothly to zero there.
        ``from_reference`` reproduces the authors' two published networks, including their derivatives (the length in
        "length" is a constant there) and the clamp of their N-body network. Presets: "qm9" (its head is
        ``GraphScalar(name, reduce="sum", after_pooling=True)``) and "nbody", as in the authors' programs.
    """

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "qm9": {"width": 128, "layers": 7, "attention": True, "update_positions": False},
        "nbody": {
            "width": 64,
            "layers": 4,
            "node_inputs": ["speed"],
            "edge_inputs": ["charge_product", "square_distance"],
            "velocity": True,
            "clamp": 100.0,
        },
    }

    def __init__(
        self,
        heads: Sequence[Head],
        width: int = 128,
        layers: int = 7,
        cutoff: float | None = None,
        node_inputs: Sequence[NodeInput] = ("element",),
        features_width: int = 0,
        edge_inputs: Sequence[EdgeInput] = (),
        edge_attr_width: int = 0,
        num_basis: int = 8,
        velocity: bool = False,
        attention: bool = False,
        normalize: Normalize = "none",
        tanh: bool = False,
        residual: bool = True,
        update_positions: bool = True,
        detach_norm: bool = False,
        clamp: float | None = None,
        count: Count = "smooth",
        elements: Sequence[int] | None = None,
    ) -> None:
        check_sizes(self, width=width, layers=layers, num_basis=num_basis)
        check_sizes(self, least=0, features_width=features_width, edge_attr_width=edge_attr_width)
        check_positive(self, clamp=clamp)
        vectors = 2 if velocity else 1
        super().__init__(heads, o3.Irreps(f"{width}x0e + {vectors}x1o"), cutoff, elements=elements)
        self.velocity = velocity
        self.embedding = NodeEmbedding(width, node_inputs, features_width)
        self.edge_embedding = EdgeEmbedding(edge_inputs, edge_attr_width, num_basis, cutoff)
        self.layers = nn.ModuleList(
            EGNNLayer(
                width,
                edge_width=self.edge_embedding.width,
                velocity=velocity,
                attention=attention,
                normalize=normalize,
                tanh=tanh,
                residual=residual,
                update_positions=update_positions,
                cutoff=cutoff,
                detach_norm=detach_norm,
                clamp=clamp,
                count=count,
            )
            for _ in range(layers)
        )

    @property
    def inexact_derivatives(self) -> str:
        """Name of the option that makes derivatives by the positions inexact; empty if they are exact."""
        inexact = any(layer.detach_norm and layer.normalize == "length" for layer in self.layers)
        return "detach_norm" if inexact else ""

    @classmethod
    def example(cls) -> Self:
        return cls([GraphScalar("energy"), Positions()], width=8, layers=2, cutoff=4.0, attention=True)

    def encode(self, data: Data, graph: Graph) -> Tensor:
        scalars = self.embedding(data)  # [N, C]
        vectors = [torch.zeros_like(graph.positions)]  # displacement
        if self.velocity:
            vel = getattr(data, "vel", None)
            if not isinstance(vel, Tensor):
                raise TensorError("EGNN with velocity=True needs data.vel, which is missing.")
            vectors.append(vel)
        graph = dataclasses.replace(graph, edge_attr=self.edge_embedding(data, graph))
        x = torch.cat([scalars, *vectors], dim=-1)  # [N, C + 3 or C + 6]
        for layer in self.layers:
            x = layer(x, graph)
        return x

    @classmethod
    def from_reference(cls, state_dict: Mapping[str, Tensor], **hyperparameters: Any) -> Self:
        """Return the authors' network, from parameters under their names and its own hyperparameters.

        There are two networks: the one for graphs and molecules (it has ``embedding_out``; outputs "features" and
        "positions") and the one of the N-body experiment (output "positions").

        Args:
            hyperparameters: in_node_nf, in_edge_nf, hidden_nf, n_layers and, for the first, out_node_nf,
                attention, normalize, tanh, residual, or for the second recurrent, norm_diff, tanh.
        """
        molecules = "embedding_out.weight" in state_dict
        arguments = reference_arguments(molecules, hyperparameters)
        model = cls(**arguments)
        load_parameters(model, state_dict, reference_names(molecules, arguments["layers"]))
        return model.to(next(iter(state_dict.values())).dtype)
