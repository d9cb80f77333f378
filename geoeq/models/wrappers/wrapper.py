"""A model around a network: what is true of the network inside is true of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch_geometric.data import Data

from geoeq.errors import InputError
from geoeq.fields import Field
from geoeq.graph import Graph
from geoeq.layers.layer import Group
from geoeq.models.model import Model
from geoeq.models.training_set import TrainingSet

__all__ = ["SameSymmetry", "Wrapper"]


class Wrapper(Model):
    """Takes the structures that the network inside takes. Subclasses say what they do with it in ``forward``.

    Args:
        model: the network, from Data to a dict of the names in ``geoeq.fields``: a Model or any other module. In
            a checkpoint it must be a Model (or another Configurable).
    """

    def __init__(self, model: nn.Module) -> None:
        nn.Module.__init__(self)
        self.model = model

    @property
    def title(self) -> str:
        """With what is inside: "FrameAveraging(FAENet)"."""
        return f"{type(self).__name__}({getattr(self.model, 'title', type(self.model).__name__)})"

    @property
    def heads(self) -> nn.ModuleList:  # type: ignore[override]
        """Those of the network inside."""
        heads: nn.ModuleList = getattr(self.model, "heads", nn.ModuleList())
        return heads

    @property
    def fields(self) -> dict[str, Field]:
        """Those of the network inside; none where it does not say."""
        return dict(getattr(self.model, "fields", {}))

    @property
    def cutoff(self) -> float | None:  # type: ignore[override]
        """That of the network inside."""
        return getattr(self.model, "cutoff", None)

    @property
    def elements(self) -> tuple[int, ...] | None:  # type: ignore[override]
        """Those that the network inside knows."""
        return getattr(self.model, "elements", None)

    @property
    def auxiliary_losses(self) -> Mapping[str, Callable[[Data], Tensor]]:
        """Those of the network inside."""
        return self.model.auxiliary_losses if isinstance(self.model, Model) else {}

    def extra_metrics(self) -> dict[str, float]:
        """Those of the network inside."""
        return self.model.extra_metrics() if isinstance(self.model, Model) else {}

    def set_elements(self, elements: Any) -> None:
        """Let the network inside accept these atomic numbers from now on."""
        if isinstance(self.model, Model):
            self.model.set_elements(elements)

    def fit_heads(self, data: TrainingSet, elements: Any = None) -> None:
        """Fit the heads of the network inside."""
        if isinstance(self.model, Model):
            self.model.fit_heads(data, elements)

    def encode(self, data: Data, graph: Graph) -> Tensor:
        """There are no features of the nodes alone.

        Raises:
            InputError: always.
        """
        raise InputError(
            f"{type(self).__name__} has no features of its own: call it, or encode with the network inside."
        )


class SameSymmetry(Wrapper):
    """A wrapper that leaves the symmetry as it is."""

    @property
    def group(self) -> Group:  # type: ignore[override]
        """That of the network inside."""
        group: Group = getattr(self.model, "group", "E(3)")
        return group

    @property
    def axis(self) -> str | None:
        """That of the network inside, where its group has one."""
        return getattr(self.model, "axis", None)

    @property
    def equivariance_error(self) -> float:
        """That which the network inside states."""
        return float(getattr(self.model, "equivariance_error", 0.0))
