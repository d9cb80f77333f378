"""Ensembles: the mean of several models of the same quantities, and their spread as an uncertainty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from geoeq.errors import FieldError, InputError
from geoeq.fields import FIELDS, Field, field, uncertainty_name
from geoeq.graph import Graph
from geoeq.layers.layer import Group
from geoeq.models.heads.scalar_heads import GraphScalar
from geoeq.models.model import Model
from geoeq.models.networks.egnn import EGNN
from geoeq.models.training_set import TrainingSet
from geoeq.models.wrappers.forces import Forces

__all__ = ["Ensemble"]


class Ensemble(Model):
    """Mean of the outputs of several models, with their standard deviation as the uncertainty.

    The standard deviation of ``energy`` is called ``energy_uncertainty``, and likewise for every output with a unit.
    For vectors and tensors it is a norm, ``(Σ_components variance)^(1/2)``. Mean forces are the derivatives of the mean
    energy if the forces of each member are derivatives of its energy.

    Members differ in their seed, their data or their network. The standard deviation of a few members is usually
    smaller than the error: ``geoeq calibrate`` determines the factors.

    Args:
        models: two or more models with the same outputs, such as ``Forces(EGNN(...))``.
        factors: output -> factor that multiplies its standard deviation; 1 by default.

    Shapes:
        energy_uncertainty: [G] eV. forces_uncertainty: [N] eV/Å. Others likewise: one number per structure or atom.

    Raises:
        FieldError: the members have different outputs or predict uncertainties themselves, or a factor belongs to no
            output.
        InputError: there are fewer than two members, their symmetries differ, or a factor is not positive.

    Source:
        Lakshminarayanan, Pritzel & Blundell, NeurIPS 2017, arXiv:1612.01474. Differs: members do not predict a
        variance.
    """

    def __init__(self, models: Sequence[Model], factors: Mapping[str, float] | None = None) -> None:
        nn.Module.__init__(self)
        if len(models) < 2:
            raise InputError(
                f"An ensemble needs two or more models, whose spread it measures; there are {len(models)}."
            )
        outputs = [set(model.fields) for model in models]
        different = next((index for index, names in enumerate(outputs) if names != outputs[0]), None)
        if different is not None:
            raise FieldError(
                f"The models of an ensemble need the same outputs: model 1 predicts {', '.join(sorted(outputs[0]))}, "
                f"and model {different + 1} {', '.join(sorted(outputs[different])) or 'no named output'}."
            )
        uncertainties = outputs[0] - set(FIELDS)
        if uncertainties or not outputs[0]:
            predicted = ", ".join(sorted(uncertainties)) or "no named output"
            raise FieldError(f"The models of an ensemble predict {predicted}: use networks without uncertainties.")
        self.members = nn.ModuleList(models)
        self.factors = {name: float(factor) for name, factor in (factors or {}).items()}
        for name, factor in self.factors.items():
            if uncertainty_name(name) not in self.fields:
                raise FieldError(f"There is a factor for '{name}', but the models have no uncertainty of it.")
            if not 0 < factor < float("inf"):
                raise InputError(f"The factor for '{name}' is {factor}; it must be a positive, finite number.")
        self.group, self.axis = _common_group(models)

    @classmethod
    def example(cls) -> Self:
        return cls([Forces(EGNN([GraphScalar("energy")], width=8, layers=1, cutoff=3.0)) for _ in range(3)])

    @property
    def title(self) -> str:
        """Name such as "Ensemble of 3 EGNN"."""
        names = [model.title for model in self.models]
        return f"Ensemble of {len(names)} {' and '.join(dict.fromkeys(names))}"

    @property
    def heads(self) -> nn.ModuleList:  # type: ignore[override]
        """An empty list, as the heads belong to the members."""
        return nn.ModuleList()

    @property
    def fields(self) -> dict[str, Field]:
        """Fields of a member, and an uncertainty of each field that has a unit."""
        known = self.models[0].fields
        spreads = [uncertainty_name(name) for name, entry in known.items() if entry.unit != "1"]
        return known | {name: field(name) for name in spreads}

    @property
    def conservative(self) -> bool:
        """Whether all members are conservative."""
        return all(model.conservative for model in self.models)

    @property
    def inexact_derivatives(self) -> str:
        """First option of a member that makes derivatives inexact."""
        return next((model.inexact_derivatives for model in self.models if model.inexact_derivatives), "")

    @property
    def cutoff(self) -> float | None:  # type: ignore[override]
        """Largest cutoff of the members; None if a member has none. Each member builds its own graph."""
        cutoffs = [model.cutoff for model in self.models]
        return None if None in cutoffs else max(cutoff for cutoff in cutoffs if cutoff is not None)

    @property
    def elements(self) -> tuple[int, ...] | None:  # type: ignore[override]
        """Elements that all members accept."""
        known = [set(model.elements) for model in self.models if model.elements is not None]
        return tuple(sorted(set.intersection(*known))) if known else None

    @property
    def equivariance_error(self) -> float:
        """Largest equivariance error that a member states."""
        return max(float(getattr(model, "equivariance_error", 0.0)) for model in self.models)

    def set_elements(self, elements: Any) -> None:
        """Let the members accept only these atomic numbers from now on."""
        for model in self.models:
            model.set_elements(elements)

    def fit_heads(self, data: TrainingSet, elements: Any = None) -> None:
        """Fit the heads of the members."""
        for model in self.models:
            model.fit_heads(data, elements)

    def encode(self, data: Data, graph: Graph) -> Tensor:
        """Refuse, as an ensemble has no node features.

        Raises:
            InputError: always.
        """
        raise InputError("An ensemble has no node features: call it, or encode with a member.")

    def forward(self, data: Data) -> dict[str, Tensor]:
        """Return means by name, and their uncertainties.

        Raises:
            InputError: a structure is invalid.
        """
        return self.combined([model(data) for model in self.members])

    def combined(self, predictions: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Return means and uncertainties from the outputs of each member."""
        outputs: dict[str, Tensor] = {}
        for name in predictions[0]:
            values = torch.stack([entry[name] for entry in predictions])  # [M, G or N, ...]
            outputs[name] = values.mean(0)
            if field(name).unit != "1":
                variance = values.var(0).flatten(1).sum(1) if values.dim() > 2 else values.var(0)
                outputs[uncertainty_name(name)] = self.factors.get(name, 1.0) * variance.sqrt()
        return outputs

    @property
    def models(self) -> list[Model]:
        """The members."""
        return list(self.members)  # type: ignore[arg-type]


def _common_group(models: Sequence[Model]) -> tuple[Group, str | None]:
    """Return the symmetry that all models have, and its axis."""
    kinds = {(model.group, getattr(model, "axis", None)) for model in models}
    if len(kinds) == 1:
        return kinds.pop()
    groups = {group for group, _ in kinds}
    if groups == {"E(3)", "SE(3)"}:
        return "SE(3)", None
    raise InputError(f"The models have different symmetries, {', '.join(sorted(groups))}: use models of one symmetry.")
