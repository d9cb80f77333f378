"""Soft equivariance: losses that encourage symmetries, with strengths that adapt to those of the task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Self

import torch
from e3nn import o3
from torch import Tensor, nn
from torch_geometric.data import Data

from geoeq.errors import InputError, check_name, check_sizes
from geoeq.fields import field
from geoeq.geometry.groups import Output, Symmetry, named_output, random_element
from geoeq.layers.layer import Group
from geoeq.models.networks.faenet import FAENet
from geoeq.models.networks.faenet_heads import EveryLayerScalar
from geoeq.models.training_set import LeastSquares, RootMeanSquare, TrainingSet, fit_references, in_parts
from geoeq.models.wrappers.wrapper import Wrapper

__all__ = ["SOFT_SYMMETRIES", "SoftEquivariance", "tuned_strengths"]

#: name of a symmetry -> the kind of group element, and its axis.
SOFT_SYMMETRIES: dict[str, tuple[Symmetry, int | None]] = {
    "rotation": ("rotation", None),
    "reflection": ("reflection", None),
    "translation": ("translation", None),
    "permutation": ("permutation", None),
    **{f"rotation about {axis}": ("rotation", number) for number, axis in enumerate("xyz")},
    **{f"reflection about {axis}": ("reflection", number) for number, axis in enumerate("xyz")},
}

#: errors below this multiple of the rounding error of the largest output count as zero: the network has the symmetry.
_ROUNDING = 4

#: number of calls that the running mean error of each symmetry averages over.
_MEMORY = 50


class SoftEquivariance(Wrapper):
    """A network with a loss for each symmetry that it might have, whose strengths are tuned in training.

    The outputs are those of the network. The wrapper adds the auxiliary loss "equivariance"::

        Σ_g λ_g R_g        R_g = mean |φ(g x) - D(g) φ(x)|² / s²

    where g is one random element of each symmetry for the whole batch, drawn in each call, D(g) the representation of
    the output as declared in ``geoeq.fields``, and s the scale of the target, so that R and the loss of the targets
    have the same unit. Gradients flow through both terms, and each symmetry costs one further pass.

    Without ``tune_after`` the strengths λ are constant. Otherwise they keep their initial values (equal ones work best)
    for that many calls, in which the network learns which symmetries the task breaks, and are then updated once::

        λ_g <- λ_g (min_h R_h / R_g)^power        R: mean over the last calls

    so that the best satisfied symmetry keeps its strength, and one that conflicts with the targets loses almost all of
    it. Symmetries that the network satisfies up to rounding are neither counted nor changed. Errors and strengths are
    in the log of a run and in its state, so that a resumed run continues with them.

    In a recipe, ``loss: {auxiliary: {equivariance: 1.0}}`` selects the loss; in a custom training loop add
    ``model.auxiliary_losses["equivariance"](data)``. Calls are counted in training mode.

    Args:
        model: a network without these symmetries, whose outputs are names of ``geoeq.fields``.
        symmetries: "rotation", "reflection", "translation", "permutation", and "rotation about z", "reflection about z"
            (in planes that contain z), likewise for x and y. Reflections are combined with rotations.
        strength: initial λ of each symmetry, or one value for all.
        tune_after: number of calls after which the strengths are tuned; a quarter of the training is a good choice.
        power: exponent of the tuning rule; larger values separate the strengths more.

    Raises:
        InputError: a symmetry is unknown or given twice, or a number is out of range.

    Attributes:
        group: group of the network inside (T(3) if it declares none), as soft symmetries are not guaranteed.

    Source:
        Kim, Lee, Yang & Lee, ICML 2023, arXiv:2306.00356, and the published code, whose tuning rule (also at a quarter
        of the training, with power 2) this is. Differs: there R_g is the distance of the weights of each linear layer
        from equivariant ones (PER), which requires a network whose hidden features all transform in a known way; this
        is not implemented. Here R_g is the error of the outputs on the structures of the batch, which works for any
        network. R in the rule is a mean over about the last 50 calls, not the smallest value of the last epochs.
    """

    strengths: Tensor
    errors: Tensor
    calls: Tensor
    scales: Tensor

    def __init__(
        self,
        model: nn.Module,
        symmetries: Sequence[str] = ("rotation", "reflection"),
        strength: float | Mapping[str, float] = 1.0,
        tune_after: int | None = None,
        power: float = 2.0,
    ) -> None:
        super().__init__(model)
        for name in symmetries:
            check_name("symmetry", name, SOFT_SYMMETRIES)
        if not symmetries or len(set(symmetries)) < len(symmetries):
            raise InputError(f"symmetries must be one or more distinct names, not {list(symmetries)}.")
        strengths = strength if isinstance(strength, Mapping) else dict.fromkeys(symmetries, strength)
        for name in strengths:
            check_name("symmetry among those given", name, symmetries)
        if set(strengths) != set(symmetries) or not all(0 <= value < float("inf") for value in strengths.values()):
            raise InputError(f"strength must be 0 or more, for each of {', '.join(symmetries)}; it is {strength}.")
        check_sizes(self, tune_after=tune_after)
        if not 0 <= power < float("inf"):
            raise InputError(f"SoftEquivariance: power is {power}; it must be 0 or more.")
        self.symmetries, self.tune_after, self.power = tuple(symmetries), tune_after, power
        self.group: Group = getattr(model, "group", "T(3)")
        self.register_buffer("strengths", torch.tensor([float(strengths[name]) for name in symmetries]))
        self.register_buffer("errors", torch.zeros(len(symmetries)))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("scales", torch.ones(len(self.fields)))

    @classmethod
    def example(cls) -> Self:
        inner = FAENet([EveryLayerScalar("energy")], width=8, filters=8, layers=1, num_basis=8, cutoff=4.0)
        return cls(inner)

    @property
    def auxiliary_losses(self) -> Mapping[str, Callable[[Data], Tensor]]:
        """Auxiliary loss "equivariance", and those of the network inside."""
        return {**super().auxiliary_losses, "equivariance": self._penalty}

    def extra_metrics(self) -> dict[str, float]:
        """Return the root mean square error of each symmetry, in scales of the targets, and its strength."""
        metrics = super().extra_metrics()
        for name, error, strength in zip(self.symmetries, self.errors.tolist(), self.strengths.tolist()):
            metrics |= {f"error of {name}": error**0.5, f"strength of {name}": strength}
        return metrics

    def fit_heads(self, data: TrainingSet, elements: Any = None) -> None:
        """Fit the heads of the network inside, and the scales of the targets."""
        parts = in_parts(data)
        super().fit_heads(parts, elements)
        self.scales = torch.tensor([_scale(parts, name) for name in self.fields]).to(self.scales)

    def forward(self, data: Data) -> dict[str, Tensor]:
        """Return the outputs of the network."""
        outputs: dict[str, Tensor] = self.model(data)
        return outputs

    def symmetry_errors(self, data: Data) -> dict[str, Tensor]:
        """Return R of each symmetry for one random element, with derivatives.

        Shapes:
            Each is a scalar [], in units of the squared scales of the targets.
        """
        outputs = {name: named_output(name, value) for name, value in self.model(data).items()}
        return self._errors(data, outputs)

    def _errors(self, data: Data, outputs: Mapping[str, Output]) -> dict[str, Tensor]:
        seed = int(torch.randint(2**62, ()))  # from PyTorch's generator, which a resumed run restores
        generator = torch.Generator().manual_seed(seed)
        scales, errors = self._scales(), {}
        for symmetry in self.symmetries:
            kind, axis = SOFT_SYMMETRIES[symmetry]
            element = random_element(kind, data, generator, axis)
            moved = self.model(element.on_data(data, o3.Irreps("0e")))
            terms = []
            for name, output in outputs.items():
                difference = named_output(name, moved[name]).value - element.on_output(output)
                terms.append((difference / scales.get(name, 1.0)).square().mean())
            errors[symmetry] = torch.stack(terms).mean()
        return errors

    def _scales(self) -> dict[str, Tensor]:
        return dict(zip(self.fields, self.scales))

    def _penalty(self, data: Data) -> Tensor:
        outputs = {name: named_output(name, value) for name, value in self.model(data).items()}
        errors = torch.stack(list(self._errors(data, outputs).values()))  # [S]
        if self.training:
            scales = self._scales()
            values = {name: output.value.detach() for name, output in outputs.items()}
            largest = [float(value.abs().max() / scales.get(name, 1.0)) for name, value in values.items()]
            rounding = max(_ROUNDING * torch.finfo(errors.dtype).eps * size for size in largest) ** 2
            self._count(errors.detach().to(self.errors), rounding)
        return (self.strengths.to(errors) * errors).sum()

    def _count(self, errors: Tensor, rounding: float) -> None:
        """Update the mean errors and, after ``tune_after`` calls, the strengths, without changing tensors in place."""
        self.calls = self.calls + 1
        weight = 1 / self.calls.clamp(max=_MEMORY).to(errors)
        self.errors = self.errors + weight * (errors - self.errors)
        if self.tune_after is not None and int(self.calls) == self.tune_after:
            self.strengths = tuned_strengths(self.strengths, self.errors, self.power, rounding)


def tuned_strengths(strengths: Tensor, errors: Tensor, power: float, rounding: float = 0.0) -> Tensor:
    """Return ``λ_g (min_h R_h / R_g)^power`` for symmetries with an error above rounding and a strength above 0.

    Shapes:
        strengths, errors: [S]. Returns [S].

    Source:
        Kim, Lee, Yang & Lee, ICML 2023, arXiv:2306.00356; see ``SoftEquivariance``.
    """
    counted = (errors > rounding) & (strengths > 0)
    least = torch.where(counted, errors, torch.inf).min()
    ratio = torch.where(counted, least / torch.where(counted, errors, 1.0), 1.0)
    return strengths * ratio**power


def _scale(parts: Iterable[Data], name: str) -> float:
    """Return the root mean square of a target without its references or mean; 1 if there is no such target."""
    labelled = (part for part in parts if isinstance(getattr(part, name, None), Tensor) and part[name].numel())
    known = field(name)
    if known.irreps == "0e":
        if known.level == "graph":
            first = next(labelled, None)
            return 1.0 if first is None else fit_references(chain([first], labelled), name, known.extensive).spread
        fit = LeastSquares(1)
        for part in labelled:
            values = part[name].reshape(-1)
            fit.add(torch.ones_like(values).unsqueeze(1), values)
        return fit.solve()[1] or 1.0
    rest = RootMeanSquare()
    for part in labelled:
        relative = known.translates and known.level == "node"
        rest.add(part[name].double() - part.pos if relative else part[name])
    return rest.value or 1.0
