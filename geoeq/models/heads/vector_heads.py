"""Heads for vectors: a vector of each atom, predicted positions, and the dipole of a graph."""

from __future__ import annotations

import torch
from e3nn import o3
from torch import Tensor

from geoeq import kernels
from geoeq.errors import FieldError, InputError
from geoeq.geometry.lattice import check_open
from geoeq.geometry.neighbors import edge_lengths as safe_norm
from geoeq.graph import Graph
from geoeq.models.heads.head import Head, checked_name, two_layers
from geoeq.models.training_set import RootMeanSquare, TrainingSet, in_parts

__all__ = ["Dipole", "NodeVector", "Positions"]


class NodeVector(Head):
    """A vector of each node: the sum of its vector channels, weighted by a network of its scalars.

    Args:
        name: a node-level vector of ``geoeq.fields``.

    Shapes:
        Returns [N, 3].

    Raises:
        InputError: the features have no vector channel.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = checked_name(name, "node", "1o")
        self.names = (name,)

    def make(self, irreps: o3.Irreps) -> None:
        _check_vectors(self, irreps)
        self.network = two_layers(self, self.num_vectors)

    def forward(self, x: Tensor, graph: Graph) -> dict[str, Tensor]:
        weights = self.network(self.scalars(x)).unsqueeze(-1)  # [N, V, 1]
        return {self.name: (weights * self.vectors(x)).sum(1)}


class Positions(Head):
    """Predicted positions: the input positions plus the first vector channel.

    Args:
        name: a node-level vector of ``geoeq.fields``.

    Shapes:
        Returns [N, 3] Å (or the unit of a dimensionless data set).

    Raises:
        InputError: the features have no vector channel.
    """

    def __init__(self, name: str = "positions") -> None:
        super().__init__()
        self.name = checked_name(name, "node", "1o")
        self.names = (name,)

    def make(self, irreps: o3.Irreps) -> None:
        _check_vectors(self, irreps)

    def forward(self, x: Tensor, graph: Graph) -> dict[str, Tensor]:
        return {self.name: graph.positions + self.vectors(x)[:, 0]}


class Dipole(Head):
    """Dipole moment of a neutral graph, from atomic charges and, if there are vector channels, atomic dipoles.

    ``μ = Σ_i q_i (r_i - r̄) + Σ_i Σ_v w_iv(x_i) x_iv``, where the mean charge of the graph is subtracted, so that the
    dipole does not depend on the origin.

    Args:
        name: "dipole" for the vector, "dipole_norm" for its length.

    Shapes:
        Returns [G, 3] e·Å for the vector, [G] for the length.

    Raises:
        CellError: a structure is periodic: its dipole depends on which periodic images of its atoms are listed.

    Source:
        Schütt et al., ICML 2021, arXiv:2102.03150, eq. 9 (charges and atomic dipoles). Differs: charges are
        neutralized.
    """

    scale: Tensor

    def __init__(self, name: str = "dipole") -> None:
        super().__init__()
        if name not in ("dipole", "dipole_norm"):
            raise FieldError(f"Dipole predicts 'dipole' or 'dipole_norm', not '{name}'.")
        self.name = name
        self.names = (name,)
        self.register_buffer("scale", torch.ones(()))

    def make(self, irreps: o3.Irreps) -> None:
        self.network = two_layers(self, 1 + self.num_vectors)

    def fit(self, data: TrainingSet) -> None:
        spread = RootMeanSquare()
        for part in in_parts(data):
            spread.add(part[self.name])
        self.scale.copy_(torch.as_tensor(spread.value or 1.0))

    def forward(self, x: Tensor, graph: Graph) -> dict[str, Tensor]:
        check_open(
            graph.pbc,
            "and its dipole depends on which periodic images of its atoms are listed: set pbc to False for a molecule "
            "in a box, after moving its atoms next to each other, or leave the head Dipole out of the model.",
        )
        out = self.network(self.scalars(x))  # [N, 1 + V]
        charge = out[:, :1] - self._mean(out[:, :1], graph)
        moments = charge * (graph.positions - self._mean(graph.positions, graph))  # [N, 3]
        moments = moments + (out[:, 1:, None] * self.vectors(x)).sum(1)
        dipole = self.scale * kernels.segment_sum(moments, graph.batch, graph.num_graphs)  # [G, 3]
        return {self.name: dipole if self.name == "dipole" else safe_norm(dipole)}

    def _mean(self, values: Tensor, graph: Graph) -> Tensor:
        return kernels.gather(kernels.segment_mean(values, graph.batch, graph.num_graphs), graph.batch)


def _check_vectors(head: Head, irreps: o3.Irreps) -> None:
    if head.num_vectors == 0:
        raise InputError(f"{type(head).__name__} needs a vector channel (1o); the network gives {irreps}.")
