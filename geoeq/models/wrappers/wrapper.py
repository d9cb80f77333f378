"""The Wrapper contract: a model around a network, which passes on the properties of that network."""

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
    """Base class of models around a network, with the same inputs; subclasses define ``forward``.

    Args:
        model: the network, from Data to a dict with names of ``geoeq.fields``: a Model or any other module. In a
            checkpoint it must be a Model (or another Configurable).
    """

    def __init__(self, model: nn.Module) -> None:
        nn.Module.__init__(self)
        self.model = model

    @property
    def title(self) -> str:
        """Name with that of the network inside, such as "FrameAveraging(FAENet)"."""
        return f"{type(self).__name__}({getattr(self.model, 'title', type(self.model).__name__)})"

    @property
    def heads(self) -> nn.ModuleList:  # type: ignore[override]
        """Heads of the network inside."""
        heads: nn.ModuleList = getattr(self.model, "heads", nn.ModuleList())
        return heads

    @property
    def fields(self) -> dict[str, Field]:
        """Fields of the network inside; empty if it does not declare any."""
        return dict(getattr(self.model, "fields", {}))

    @property
    def cutoff(self) -> float | None:  # type: ignore[override]
        """Cutoff of the network inside."""
        return getattr(self.model, "cutoff", None)

    @property
    def elements(self) -> tuple[int, ...] | None:  # type: ignore[override]
        """Elements that the network inside accepts."""
        return getattr(self.model, "elements", None)

    @property
    def inexact_derivatives(self) -> str:
        """Option that makes derivatives of the network inside inexact."""
        return str(getattr(self.model, "inexact_derivatives", ""))

    @property
    def auxiliary_losses(self) -> Mapping[str, Callable[[Data], Tensor]]:
        """Auxiliary losses of the network inside."""
        return self.model.auxiliary_losses if isinstance(self.model, Model) else {}

    def extra_metrics(self) -> dict[str, float]:
        """Return the extra metrics of the network inside."""
        return self.model.extra_metrics() if isinstance(self.model, Model) else {}

    def set_elements(self, elements: Any) -> None:
        """Let the network inside accept only these atomic numbers from now on."""
        if isinstance(self.model, Model):
            self.model.set_elements(elements)

    def fit_heads(self, data: TrainingSet, elements: Any = None) -> None:
        """Fit the heads of the network inside."""
        if isinstance(self.model, Model):
            self.model.fit_heads(data, elements)

    def encode(self, data: Data, graph: Graph) -> Tensor:
        """Refuse, as a wrapper has no node features.

        Raises:
            InputError: always.
        """
        raise InputError(f"{type(self).__name__} has no node features: call it, or encode with the network inside.")


class SameSymmetry(Wrapper):
    """Base class of wrappers that keep the symmetry of the network inside."""

    @property
    def group(self) -> Group:  # type: ignore[override]
        """Group of the network inside."""
        group: Group = getattr(self.model, "group", "E(3)")
        return group

    @property
    def axis(self) -> str | None:
        """Axis of the network inside, if its group has one."""
        return getattr(self.model, "axis", None)

    @property
    def equivariance_error(self) -> float:
        """Equivariance error that the network inside states."""
        return float(getattr(self.model, "equivariance_error", 0.0))
