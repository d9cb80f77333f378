"""Several models of the same quantities: their mean, and how far they are from each other."""

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
    """The mean of what models say, and their standard deviation as its uncertainty.

    The deviation of ``energy`` is called ``energy_uncertainty``, and so of all that has a unit. That of vectors and
    tensors is a norm, ``(Σ_components variance)^(1/2)``. Means of forces are the derivatives of the mean energy,
    where those of each member are derivatives of its own.

    Members differ in their seed, their data or their network. A deviation of a few members, as they are trained, is
    smaller than the error: ``geoeq calibrate`` finds the factors.

    Args:
        models: two or more that give the same, such as ``Forces(EGNN(...))``.
        factors: output -> number by which the deviation is multiplied; 1 where none is given.

    Shapes:
        energy_uncertainty: [G] eV. forces_uncertainty: [N] eV/Å. Others likewise, one number a structure or an atom.

    Raises:
        FieldError: the members do not give the same, or uncertainties of their own; or a factor is for none of it.
        InputError: there are fewer than two, their symmetries have nothing in common, or a factor is not positive.

    Source:
        Lakshminarayanan, Pritzel & Blundell, NeurIPS 2017, arXiv:1612.01474. Differs: members do not predict a
        variance of their own.
    """

    def __init__(self, models: Sequence[Model], factors: Mapping[str, float] | None = None) -> None:
        nn.Module.__init__(self)
        if len(models) < 2:
            raise InputError(f"An ensemble needs two models or more, to see how far they differ; given: {len(models)}.")
        given = [set(model.fields) for model in models]
        odd = next((place for place, names in enumerate(given) if names != given[0]), None)
        if odd is not None:
            raise FieldError(
                f"The models of an ensemble give the same: the first gives {', '.join(sorted(given[0]))}, and number "
                f"{odd + 1} {', '.join(sorted(given[odd])) or 'nothing that it names'}."
            )
        own = given[0] - set(FIELDS)
        if own or not given[0]:
            what = ", ".join(sorted(own)) or "nothing that they name"
            raise FieldError(f"The models give {what}: take networks without uncertainties of their own.")
        self.members = nn.ModuleList(models)
        self.factors = {name: float(factor) for name, factor in (factors or {}).items()}
        for name, factor in self.factors.items():
            if uncertainty_name(name) not in self.fields:
                raise FieldError(f"There is a factor for '{name}', of which the models have no uncertainty.")
            if not factor > 0:
                raise InputError(f"The factor for '{name}' is {factor}; it must be above 0.")
        self.group, self.axis = _common_group(models)

    @classmethod
    def example(cls) -> Self:
        return cls([Forces(EGNN([GraphScalar("energy")], width=8, layers=1, cutoff=3.0)) for _ in range(3)])

    @property
    def title(self) -> str:
        """ "Ensemble of 3 EGNN"."""
        names = [model.title for model in self.models]
        return f"Ensemble of {len(names)} {' and '.join(dict.fromkeys(names))}"

    @property
    def heads(self) -> nn.ModuleList:  # type: ignore[override]
        """None: they are those of the members."""
        return nn.ModuleList()

    @property
    def fields(self) -> dict[str, Field]:
        """Those of a member, and an uncertainty of each that has a unit."""
        known = self.models[0].fields
        spreads = [uncertainty_name(name) for name, entry in known.items() if entry.unit != "1"]
        return known | {name: field(name) for name in spreads}

    @property
    def conservative(self) -> bool:
        """Whether those of all members are."""
        return all(model.conservative for model in self.models)

    @property
    def cutoff(self) -> float | None:  # type: ignore[override]
        """The largest; None where a member has none. Each member has a graph of its own."""
        cutoffs = [model.cutoff for model in self.models]
        return None if None in cutoffs else max(cutoff for cutoff in cutoffs if cutoff is not None)

    @property
    def elements(self) -> tuple[int, ...] | None:  # type: ignore[override]
        """Those that all members know."""
        known = [set(model.elements) for model in self.models if model.elements is not None]
        return tuple(sorted(set.intersection(*known))) if known else None

    @property
    def equivariance_error(self) -> float:
        """The largest that a member states."""
        return max(float(getattr(model, "equivariance_error", 0.0)) for model in self.models)

    def set_elements(self, elements: Any) -> None:
        """Let the members accept these atomic numbers from now on."""
        for model in self.models:
            model.set_elements(elements)

    def fit_heads(self, data: TrainingSet, elements: Any = None) -> None:
        """Fit the heads of the members."""
        for model in self.models:
            model.fit_heads(data, elements)

    def encode(self, data: Data, graph: Graph) -> Tensor:
        """There are no features of all members.

        Raises:
            InputError: always.
        """
        raise InputError("An ensemble has no features of its own: call it, or encode with a member.")

    def forward(self, data: Data) -> dict[str, Tensor]:
        """Means by name, and deviations.

        Raises:
            InputError: a structure cannot be what was meant.
        """
        return self.combined([model(data) for model in self.members])

    def combined(self, given: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Means and deviations of what each member gave."""
        outputs: dict[str, Tensor] = {}
        for name in given[0]:
            values = torch.stack([entry[name] for entry in given])  # [M, G or N, ...]
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
    """The symmetry that all have, and its axis."""
    kinds = {(model.group, getattr(model, "axis", None)) for model in models}
    if len(kinds) == 1:
        return kinds.pop()
    groups = {group for group, _ in kinds}
    if groups == {"E(3)", "SE(3)"}:
        return "SE(3)", None
    raise InputError(f"The models have different symmetries, {', '.join(sorted(groups))}: take those of one.")
