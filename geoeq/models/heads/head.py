"""The Head contract: node features to named outputs in the units of ``geoeq.fields``."""

from __future__ import annotations

from abc import ABC, abstractmethod

from e3nn import o3
from torch import Tensor, nn

from geoeq.errors import FieldError, InputError
from geoeq.fields import field
from geoeq.graph import Graph
from geoeq.layers.layer import Group
from geoeq.models.config import Configurable
from geoeq.models.training_set import TrainingSet

__all__ = ["Head", "checked_name", "two_layers"]


class Head(Configurable, nn.Module, ABC):
    """``(x, graph) -> dict``. It learns the width of its input when a model binds it.

    Attributes:
        names: the outputs it gives, each in ``geoeq.fields``.
        group: "T(3)" where its outputs do not turn with the features, as a model of the group T(3) alone takes it.
        irreps: of the features that it is bound to.
        last_layer_asked: whether its model gives "last_layer" too, its ``last_features``; set by ``LastLayer``.
    """

    names: tuple[str, ...]
    irreps: o3.Irreps
    group: Group = "E(3)"
    last_layer_asked: bool = False

    def bind(self, irreps: o3.Irreps) -> None:
        """Make the parameters for features of these irreps: scalars (0e) first, vectors (1o) after them."""
        self.irreps = irreps
        self.width = irreps.count("0e")
        self.num_vectors = irreps.count("1o")
        self.make(irreps)

    @abstractmethod
    def make(self, irreps: o3.Irreps) -> None:
        """Make the parameters."""

    def fit(self, data: TrainingSet) -> None:
        """Take references, shift and scale from the training set; nothing where a head has none."""

    @abstractmethod
    def forward(self, x: Tensor, graph: Graph) -> dict[str, Tensor]:
        """Node features [N, irreps.dim] to outputs by name."""

    def last_features(self, x: Tensor, graph: Graph) -> Tensor:
        """What its last linear map is given, of a head with one number for each graph: the features of ``LastLayer``.

        Shapes:
            Returns [G, W], with ``output = scale · last_features @ last_weights + what the network does not change``.

        Raises:
            InputError: it has no such map, or none that is known.
        """
        raise _no_last_layer(self)

    def last_weights(self) -> Tensor:
        """The weights, and the biases where there are some, of its last linear map.

        Shapes:
            Returns [W].

        Raises:
            InputError: it has no such map, or none that is known.
        """
        raise _no_last_layer(self)

    def scalars(self, x: Tensor) -> Tensor:
        """The invariant part of the features, [N, C]."""
        return x[:, : self.width]

    def vectors(self, x: Tensor) -> Tensor:
        """The vector part of the features, [N, V, 3]."""
        return x[:, self.width : self.width + 3 * self.num_vectors].reshape(-1, self.num_vectors, 3)


def _no_last_layer(head: Head) -> InputError:
    return InputError(
        f"{type(head).__name__} has no last layer that is known, of which an uncertainty could be made: take an "
        "ensemble, or another head, such as GraphScalar."
    )


def two_layers(width: int, width_out: int) -> nn.Sequential:
    """The small network at the end of a head."""
    return nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width_out))


def checked_name(name: str, level: str, irreps: str) -> str:
    """``name`` itself.

    Raises:
        FieldError: it is not a field, or one of another level or of other irreps.
    """
    known = field(name)
    if (known.level, known.irreps) != (level, irreps):
        raise FieldError(
            f"'{name}' is a {known.level} quantity with irreps {known.irreps}; this head gives {level} {irreps}. "
            "``default_head`` gives the right one."
        )
    return name
