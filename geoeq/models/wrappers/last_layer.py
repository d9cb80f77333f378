"""The uncertainty of one model, from the features of the last layer of its head."""

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
    """A model and the uncertainty of one output: how far a structure is, in its last layer, from those learnt.

    The output is a linear function of the features f of the last layer. With F, the features of the training set as
    rows, the variance is that of a Bayesian linear regression with a Gaussian prior::

        σ² = α² fᵀ (Fᵀ F + ς² I)⁻¹ f

    α and ς are found on a validation set (``geoeq calibrate``); until ``set_covariance`` was called, σ is NaN. The
    output itself is not changed, and the estimate costs a product with a matrix. It is of the error of a structure;
    there is none for its forces, which would need a derivative for each feature.

    Every network has it, also within frames and other wrappers, whose averages are linear. Which features they are,
    the head says (``Head.last_features``): ``GraphScalar`` and all heads that derive from it have some. A feature of 1
    stands for the bias.

    Args:
        model: with a head for the target that has a last layer. Forces go around: ``Forces(LastLayer(model))``.
        target: the output.

    Shapes:
        last layer: [G, W]. energy_uncertainty: [G], eV.

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
        width = len(last_layer_head(model, target).last_weights())
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
        head.last_layer_asked = True
        try:
            outputs = dict(self.model(data))
        finally:
            head.last_layer_asked = False
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


def last_layer_head(model: nn.Module, target: str) -> Head:
    """The head that gives the target, where its last layer is one that is known.

    Raises:
        FieldError: no head gives the target.
        InputError: it has no last layer of that kind.
    """
    heads = [head for head in getattr(model, "heads", []) if isinstance(head, Head)]
    found = next((head for head in heads if target in head.names), None)
    if found is None:
        names = ", ".join(name for head in heads for name in head.names) or "nothing"
        raise FieldError(f"No head of {type(model).__name__} gives '{target}': they give {names}.")
    if (field(target).level, field(target).irreps) != ("graph", "0e"):
        raise InputError(f"'{target}' is not one number for each structure, of which a last layer has an uncertainty.")
    found.last_weights()  # which a head without a last layer refuses
    kind = type(found)
    if _depth(kind, "make", "forward", "scalars") < _depth(kind, "last_features", "last_of_atoms"):
        raise InputError(
            f"{kind.__name__} computes something else than what it derives from, and does not say what its last layer "
            "is: give it last_features and last_weights, as geoeq.models.Head has them."
        )
    return found


def _depth(kind: type, *names: str) -> int:
    """How far up one of these methods is defined first."""
    return next(place for place, base in enumerate(kind.__mro__) if any(name in vars(base) for name in names))
