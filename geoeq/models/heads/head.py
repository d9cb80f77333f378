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

__all__ = ["Head", "checked_name", "num_scalars", "two_layers"]


class Head(Configurable, nn.Module, ABC):
    """Base class of heads, ``(x, graph) -> dict``, whose parameters are created when a model binds them to its irreps.

    Attributes:
        names: names of the outputs, each in ``geoeq.fields``.
        group: "T(3)" if its outputs do not rotate with the features; only models of the group T(3) accept such a head.
        irreps: irreps of the features that it is bound to.
        with_last_layer: whether its model also outputs "last_layer", its ``last_features``; set by ``LastLayer``.
    """

    names: tuple[str, ...]
    irreps: o3.Irreps
    group: Group = "E(3)"
    with_last_layer: bool = False

    def bind(self, irreps: o3.Irreps) -> None:
        """Create the parameters for features of these irreps: scalars (0e) first, then vectors (1o)."""
        self.irreps = irreps
        self.width = irreps.count("0e")
        self.num_vectors = irreps.count("1o")
        self.make(irreps)

    @abstractmethod
    def make(self, irreps: o3.Irreps) -> None:
        """Create the parameters."""

    def fit(self, data: TrainingSet) -> None:
        """Fit references, shift and scale to the training set; by default there are none."""

    @abstractmethod
    def forward(self, x: Tensor, graph: Graph) -> dict[str, Tensor]:
        """Return outputs by name from node features [N, irreps.dim]."""

    def last_features(self, x: Tensor, graph: Graph) -> Tensor:
        """Return the input of the last linear map, for heads with one scalar per graph; ``LastLayer`` uses it.

        Shapes:
            Returns [G, W], with ``output = scale · last_features @ last_weights + terms without parameters``.

        Raises:
            InputError: the head does not define a last linear map.
        """
        raise _no_last_layer(self)

    def last_weights(self) -> Tensor:
        """Return the weights, and the bias if there is one, of the last linear map.

        Shapes:
            Returns [W].

        Raises:
            InputError: the head does not define a last linear map.
        """
        raise _no_last_layer(self)

    def scalars(self, x: Tensor) -> Tensor:
        """Return the scalars among the features, [N, C]."""
        return x[:, : self.width]

    def vectors(self, x: Tensor) -> Tensor:
        """Return the vectors among the features, [N, V, 3]."""
        return x[:, self.width : self.width + 3 * self.num_vectors].reshape(-1, self.num_vectors, 3)


def _no_last_layer(head: Head) -> InputError:
    return InputError(
        f"{type(head).__name__} does not define a last layer, from which an uncertainty could be computed: use an "
        "ensemble, or another head, such as GraphScalar."
    )


def num_scalars(head: Head) -> int:
    """Return the number of scalars (0e) among the features of a head that needs some.

    Raises:
        InputError: there are none.
    """
    if head.width == 0:
        raise InputError(f"{type(head).__name__} needs scalars (0e); the network gives {head.irreps or 'no features'}.")
    width: int = head.width
    return width


def two_layers(head: Head, width_out: int) -> nn.Sequential:
    """Return the small network of the scalars at the end of a head."""
    width = num_scalars(head)
    return nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width_out))


def checked_name(name: str, level: str, irreps: str) -> str:
    """Return ``name`` after checking its level and irreps.

    Raises:
        FieldError: it is not a field, or a field of another level or of other irreps.
    """
    known = field(name)
    if (known.level, known.irreps) != (level, irreps):
        raise FieldError(
            f"'{name}' is a {known.level} quantity with irreps {known.irreps}; this head predicts {level} {irreps}. "
            "default_head returns the right one."
        )
    return name
