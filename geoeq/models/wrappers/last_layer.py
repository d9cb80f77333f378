"""Last-layer uncertainty: the uncertainty of one model, from the features of the last layer of its head."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from geoeq.errors import FieldError, InputError
from geoeq.fields import Field, field, uncertainty_name
from geoeq.models.heads.head import Head
from geoeq.models.heads.scalar_heads import GraphScalar
from geoeq.models.model import Model
from geoeq.models.networks.egnn import EGNN
from geoeq.models.wrappers.forces import Forces
from geoeq.models.wrappers.wrapper import SameSymmetry

__all__ = ["LastLayer", "last_layer_head"]


class LastLayer(SameSymmetry):
    """A model with the uncertainty of one output, from the features of the last layer.

    The uncertainty is large for structures whose features differ from those of the training set. The output is a linear
    function of the features f of the last layer. With the features of the training set as rows
    of F, the variance is that of a Bayesian linear regression with a Gaussian prior::

        σ² = α² fᵀ (Fᵀ F + ς² I)⁻¹ f

    α and ς are fitted on a validation set (``geoeq calibrate``); before ``set_covariance`` is called, σ is NaN. The
    output itself is unchanged, and the estimate costs one matrix product. It estimates the error of a structure, not of
    its forces, which would need a derivative for each feature.

    It works for every network, also within frame averaging and other wrappers, whose averages are linear. The head
    defines the features (``Head.last_features``), as ``GraphScalar`` and all heads derived from it do. A feature of 1
    represents the bias.

    Args:
        model: model with a head for the target that defines a last layer. Forces wrap it: ``Forces(LastLayer(model))``.
        target: name of the output.

    Shapes:
        last layer: [G, W]. energy_uncertainty: [G], eV.

    Raises:
        FieldError: no head predicts the target.
        InputError: the model has forces or an uncertainty already, or the head does not define its last layer.

    Source:
        Bigi, Chong, Ceriotti & Grasselli, Mach. Learn.: Sci. Technol. 5 (2024), arXiv:2403.02251.
    """

    root: Tensor

    def __init__(self, model: Model, target: str = "energy") -> None:
        super().__init__(model)
        if isinstance(model, Forces):
            raise InputError("Apply Forces after LastLayer: Forces(LastLayer(model)), with the network without forces.")
        if uncertainty_name(target) in model.fields:
            raise InputError(f"{model.title} has an uncertainty of its '{target}' already.")
        self.target = target
        width = len(last_layer_head(model, target).last_weights())
        self.register_buffer("root", torch.full((width, width), math.nan, dtype=torch.float64))

    @classmethod
    def example(cls) -> Self:
        model = cls(EGNN([GraphScalar("energy")], width=8, layers=1))
        model.set_covariance(torch.eye(9), 1.0, 1.0)
        return model

    @property
    def fields(self) -> dict[str, Field]:
        """Fields of the network inside, and the uncertainty."""
        name = uncertainty_name(self.target)
        return super().fields | {name: field(name)}

    def set_covariance(self, covariance: Tensor, regularizer: float, scale: float) -> None:
        """Set the parameters of the uncertainty, as fitted to data.

        Args:
            covariance: Fᵀ F of the training set, [W, W].
            regularizer: ς², above 0.
            scale: α, above 0.

        Raises:
            InputError: a number is not positive, or the matrix is not finite.
        """
        if not (regularizer > 0 and scale > 0 and bool(covariance.isfinite().all())):
            raise InputError(
                "The covariance must be finite, and regularizer and scale above 0; the latter are "
                f"{regularizer} and {scale}."
            )
        values, vectors = torch.linalg.eigh(covariance.detach().double())
        inverse = (values.clamp(min=0) + regularizer).rsqrt()
        self.root.copy_(scale * inverse.unsqueeze(1) * vectors.mT)

    def features(self, data: Data) -> tuple[dict[str, Tensor], Tensor]:
        """Return the outputs of the network inside, and the features of the last layer [G, W], float64."""
        head = last_layer_head(self.model, self.target)
        head.with_last_layer = True
        try:
            outputs = dict(self.model(data))
        finally:
            head.with_last_layer = False
        return outputs, outputs.pop("last_layer").double()

    def forward(self, data: Data) -> dict[str, Tensor]:
        """Return the outputs of the network inside, and the uncertainty.

        Raises:
            InputError: a structure is invalid.
        """
        outputs, features = self.features(data)
        outputs[uncertainty_name(self.target)] = (features @ self.root.mT).norm(dim=1)
        return outputs

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        exact = self.root  # stays float64 when the dtype of the model changes
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.root = exact.to(self.root.device)
        return self


def last_layer_head(model: nn.Module, target: str) -> Head:
    """Return the head that predicts the target, after checking that it defines its last layer.

    Raises:
        FieldError: no head predicts the target.
        InputError: the head does not define a last layer.
    """
    heads = [head for head in getattr(model, "heads", []) if isinstance(head, Head)]
    head = next((head for head in heads if target in head.names), None)
    if head is None:
        names = ", ".join(name for head in heads for name in head.names) or "nothing"
        raise FieldError(f"No head of {type(model).__name__} predicts '{target}': they predict {names}.")
    if (field(target).level, field(target).irreps) != ("graph", "0e"):
        raise InputError(f"'{target}' is not a scalar of each structure; a last layer has an uncertainty of such only.")
    head.last_weights()  # raises for a head without a last layer
    kind = type(head)
    if _depth(kind, "make", "forward", "scalars") < _depth(kind, "last_features", "last_of_atoms"):
        raise InputError(
            f"{kind.__name__} changes the computation of its base class without defining its last layer: implement "
            "last_features and last_weights, as described in geoeq.models.Head."
        )
    return head


def _depth(kind: type, *names: str) -> int:
    """Return the index in the method resolution order of the first class that defines one of these methods."""
    return next(index for index, base in enumerate(kind.__mro__) if any(name in vars(base) for name in names))
