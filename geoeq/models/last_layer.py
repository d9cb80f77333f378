"""The uncertainty of one model, from the features of the last layer of its head."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from geoeq import kernels
from geoeq.errors import FieldError, InputError
from geoeq.fields import Field, field, uncertainty_name
from geoeq.graph import Graph
from geoeq.models.egnn import EGNN
from geoeq.models.forces import Forces
from geoeq.models.head import Head
from geoeq.models.model import Model
from geoeq.models.scalar_heads import GraphScalar
from geoeq.models.wrapper import SameSymmetry

__all__ = ["LastLayer", "last_layer_head"]


class LastLayer(SameSymmetry):
    """A model and the uncertainty of one output: how far a structure is, in its last layer, from those learnt.

    The output is a linear function of the features f of the last layer. With F, the features of the training set as
    rows, the variance is that of a Bayesian linear regression with a Gaussian prior::

        σ² = α² fᵀ (Fᵀ F + ς² I)⁻¹ f

    α and ς are found on a validation set (``geoeq calibrate``); until ``set_covariance`` was called, σ is NaN. The
    output itself is not changed, and the estimate costs a product with a matrix. It is of the error of a structure;
    there is none for its forces, which would need a derivative for each feature.

    Every network has it through ``GraphScalar`` (also within frames and other wrappers, whose averages are linear).

    Args:
        model: with a ``GraphScalar`` for the target. Forces go around: ``Forces(LastLayer(model))``.
        target: the output.

    Shapes:
        last layer: [G, W]; W is the number of features, and one for the bias. energy_uncertainty: [G], eV.

    Raises:
        FieldError: no head gives the target.
        InputError: it is a model with forces or an uncertainty, or a head whose last layer is none that is known here.

    Source:
        Bigi, Chong, Ceriotti & Grasselli, Mach. Learn.: Sci. Technol. 5 (2024), arXiv:2403.02251.
    """

    root: Tensor

    def __init__(self, model: Model, target: str = "energy") -> None:
        super().__init__(model)
        if isinstance(model, Forces):
            raise InputError("Forces go around the uncertainty: Forces(LastLayer(model)), of the network within them.")
        if uncertainty_name(target) in model.fields:
            raise InputError(f"{model.title} has an uncertainty of its '{target}' already.")
        self.target = target
        width = _last_linear(last_layer_head(model, target)).in_features + 1
        self.register_buffer("root", torch.full((width, width), math.nan, dtype=torch.float64))

    @classmethod
    def example(cls) -> Self:
        made = cls(EGNN([GraphScalar("energy")], width=8, layers=1))
        made.set_covariance(torch.eye(9), 1.0, 1.0)
        return made

    @property
    def fields(self) -> dict[str, Field]:
        """Those of the network inside, and the uncertainty."""
        name = uncertainty_name(self.target)
        return super().fields | {name: field(name)}

    def set_covariance(self, covariance: Tensor, regularizer: float, scale: float) -> None:
        """Take what was found on data.

        Args:
            covariance: Fᵀ F of the training set, [W, W].
            regularizer: ς², above 0.
            scale: α.

        Raises:
            InputError: a number is not positive, or the matrix is not finite.
        """
        if not (regularizer > 0 and scale > 0 and bool(covariance.isfinite().all())):
            raise InputError(
                f"A covariance that is finite, a regularizer and a scale above 0 are needed; these are {regularizer} "
                f"and {scale}."
            )
        values, vectors = torch.linalg.eigh(covariance.detach().double())
        inverse = (values.clamp(min=0) + regularizer).rsqrt()
        self.root.copy_(scale * inverse.unsqueeze(1) * vectors.mT)

    def features(self, data: Data) -> tuple[dict[str, Tensor], Tensor]:
        """What the network inside gives, and the features of the last layer [G, W], float64."""
        head = last_layer_head(self.model, self.target)
        handle = head.register_forward_hook(_add_features)
        try:
            outputs = dict(self.model(data))
        finally:
            handle.remove()
        return outputs, outputs.pop("last_layer").double()

    def forward(self, data: Data) -> dict[str, Tensor]:
        """What the network inside gives, and the uncertainty.

        Raises:
            InputError: a structure cannot be what was meant.
        """
        outputs, features = self.features(data)
        outputs[uncertainty_name(self.target)] = (features @ self.root.mT).norm(dim=1)
        return outputs

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        exact = self.root  # which a change of the dtype of the model does not round
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.root = exact.to(self.root.device)
        return self


def last_layer_head(model: nn.Module, target: str) -> GraphScalar:
    """The head that gives the target, where its last layer is one that is known here.

    Raises:
        FieldError: no head gives the target.
        InputError: it has no last layer of that kind.
    """
    heads = [head for head in getattr(model, "heads", []) if isinstance(head, Head)]
    found = next((head for head in heads if target in head.names), None)
    if found is None:
        names = ", ".join(name for head in heads for name in head.names) or "nothing"
        raise FieldError(f"No head of {type(model).__name__} gives '{target}': they give {names}.")
    if type(found) is not GraphScalar:
        raise InputError(
            f"The uncertainty of a last layer is there for the head GraphScalar, and not for {type(found).__name__}: "
            "take an ensemble, or train with GraphScalar."
        )
    return found


def _add_features(head: nn.Module, inputs: tuple[Tensor, Graph], outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    x, graph = inputs
    return {**outputs, "last_layer": _features(head, x, graph)}  # type: ignore[arg-type]


def _features(head: GraphScalar, x: Tensor, graph: Graph) -> Tensor:
    """The derivative [G, W] of the output by the weights and the bias of the last layer, but for the scale."""
    reduce = kernels.segment_sum if head.reduce == "sum" else kernels.segment_mean
    if head.pooled is not None:
        pooled = reduce(head.network(head.scalars(x)), graph.batch, graph.num_graphs)  # [G, C]
        return _with_one(head.pooled[:-1](pooled))
    hidden = _with_one(head.network[:-1](head.scalars(x)).double())
    return reduce(hidden, graph.batch, graph.num_graphs)


def _with_one(hidden: Tensor) -> Tensor:
    return torch.cat([hidden, torch.ones_like(hidden[:, :1])], dim=1)


def _last_linear(head: GraphScalar) -> nn.Linear:
    return (head.network if head.pooled is None else head.pooled)[-1]  # type: ignore[return-value]
