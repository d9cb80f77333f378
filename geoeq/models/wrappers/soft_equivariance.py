"""Soft equivariance: a network is asked, not forced, to have symmetries, and those that the task has are found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Self

import torch
from e3nn import o3
from torch import Tensor, nn
from torch_geometric.data import Data

from geoeq.errors import InputError, unknown_name
from geoeq.fields import field
from geoeq.geometry.groups import Output, Symmetry, named_output, random_element
from geoeq.layers.layer import Group
from geoeq.models.networks.faenet import FAENet
from geoeq.models.networks.faenet_heads import EveryLayerScalar
from geoeq.models.training_set import LeastSquares, RootMeanSquare, TrainingSet, fit_references, in_parts
from geoeq.models.wrappers.wrapper import Wrapper

__all__ = ["SOFT_SYMMETRIES", "SoftEquivariance", "tuned_strengths"]

#: what may be asked for: the kind of group element, and its axis.
SOFT_SYMMETRIES: dict[str, tuple[Symmetry, int | None]] = {
    "rotation": ("rotation", None),
    "reflection": ("reflection", None),
    "translation": ("translation", None),
    "permutation": ("permutation", None),
    **{f"rotation about {axis}": ("rotation", number) for number, axis in enumerate("xyz")},
    **{f"reflection about {axis}": ("reflection", number) for number, axis in enumerate("xyz")},
}

#: errors below so many times the rounding of the largest output are none: the network has the symmetry by itself.
_ROUNDING = 4

#: memory of the mean error of each symmetry, in calls.
_MEMORY = 50


class SoftEquivariance(Wrapper):
    """A network with a loss for each symmetry that it might have, whose strengths are tuned in training.

    The outputs are those of the network. Beside them there is the auxiliary loss "equivariance"::

        Σ_g λ_g R_g        R_g = mean |φ(g x) - D(g) φ(x)|² / s²

    with g one random element of each symmetry for the whole batch, drawn anew in each call, D(g) as ``geoeq.fields``
    says that the output turns, and s the scale of the target, so that R and the loss of the targets have one unit. It
    has derivatives by the parameters through both sides, and costs one pass more for each symmetry.

    Without ``tune_after`` the strengths λ stay what they are. With it, they are what they are (equal, best) for so
    many calls, in which the network finds out what the task breaks; then, once::

        λ_g <- λ_g (min_h R_h / R_g)^power        R: mean over the last calls

    so that the symmetry which is kept best keeps its strength, and one that costs the targets much loses almost all of
    it. Symmetries that the network has by itself, to rounding, are neither counted nor changed. Errors and strengths
    are in the log of a run and in its state: a resumed run goes on with them.

    In a recipe ``loss: {auxiliary: {equivariance: 1.0}}`` asks for the loss; in a training loop of your own add
    ``model.auxiliary_losses["equivariance"](data)``. It counts calls in training mode.

    Args:
        model: the network; one without these symmetries. Its outputs are names in ``geoeq.fields``.
        symmetries: "rotation", "reflection", "translation", "permutation", and "rotation about z", "reflection about z"
            (in planes that contain z), or x or y. Reflections are with rotations.
        strength: λ of each symmetry at the start, or one for all.
        tune_after: calls after which the strengths are tuned; a quarter of the training is a good choice.
        power: how much is made of the differences.

    Raises:
        InputError: there is no such symmetry, one is given twice, or a number is out of range.

    Attributes:
        group: that of the network inside (T(3) where it does not say): nothing is claimed of what is only asked for.

    Source:
        Kim, Lee, Yang & Lee, ICML 2023, arXiv:2306.00356, and the published code, whose rule of tuning (also at a
        quarter of the training, with power 2) is this one. Differs: there R_g is the distance of the weights of each
        linear layer from those that are equivariant (PER), which takes a network whose hidden features all turn in a
        known way; that is not here. Here it is the error of the outputs on the structures of the batch, which takes
        any network. R in the rule is a mean over the last 50 calls or so, not the smallest of the last epochs.
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
            if name not in SOFT_SYMMETRIES:
                raise InputError(unknown_name("symmetry", name, SOFT_SYMMETRIES))
        if not symmetries or len(set(symmetries)) < len(symmetries):
            raise InputError(f"symmetries must be one or several names, each once, not {list(symmetries)}.")
        given = strength if isinstance(strength, Mapping) else dict.fromkeys(symmetries, strength)
        for name in given:
            if name not in symmetries:
                raise InputError(unknown_name("symmetry among those given", name, symmetries))
        if set(given) != set(symmetries) or not all(0 <= value < float("inf") for value in given.values()):
            raise InputError(f"strength must be 0 or more, for each of {', '.join(symmetries)}; it is {strength}.")
        if (tune_after is not None and tune_after < 1) or power < 0:
            raise InputError(f"tune_after must be 1 or more, and power 0 or more; they are {tune_after} and {power}.")
        self.symmetries, self.tune_after, self.power = tuple(symmetries), tune_after, power
        self.group: Group = getattr(model, "group", "T(3)")
        self.register_buffer("strengths", torch.tensor([float(given[name]) for name in symmetries]))
        self.register_buffer("errors", torch.zeros(len(symmetries)))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("scales", torch.ones(len(self.fields)))

    @classmethod
    def example(cls) -> Self:
        inner = FAENet([EveryLayerScalar("energy")], width=8, filters=8, layers=1, num_basis=8, cutoff=4.0)
        return cls(inner)

    @property
    def auxiliary_losses(self) -> Mapping[str, Callable[[Data], Tensor]]:
        """ "equivariance", and those of the network inside."""
        return {**super().auxiliary_losses, "equivariance": self._penalty}

    def extra_metrics(self) -> dict[str, float]:
        """The mean error of each symmetry, root mean square in scales of the targets, and its strength."""
        found = super().extra_metrics()
        for name, error, strength in zip(self.symmetries, self.errors.tolist(), self.strengths.tolist()):
            found |= {f"error of {name}": error**0.5, f"strength of {name}": strength}
        return found

    def fit_heads(self, data: TrainingSet, elements: Any = None) -> None:
        """Fit the heads of the network inside, and take the scales of the targets."""
        parts = in_parts(data)
        super().fit_heads(parts, elements)
        self.scales = torch.tensor([_scale(parts, name) for name in self.fields]).to(self.scales)

    def forward(self, data: Data) -> dict[str, Tensor]:
        """The outputs of the network."""
        outputs: dict[str, Tensor] = self.model(data)
        return outputs

    def symmetry_errors(self, data: Data) -> dict[str, Tensor]:
        """R of each symmetry, for one random element, with derivatives.

        Shapes:
            Each is a scalar [], in squares of the scales of the targets.
        """
        outputs = {name: named_output(name, value) for name, value in self.model(data).items()}
        return self._errors(data, outputs)

    def _errors(self, data: Data, outputs: Mapping[str, Output]) -> dict[str, Tensor]:
        seed = int(torch.randint(2**62, ()))  # of PyTorch's generator, as a resumed run has it
        generator = torch.Generator().manual_seed(seed)
        scales, found = self._scales(), {}
        for symmetry in self.symmetries:
            kind, axis = SOFT_SYMMETRIES[symmetry]
            element = random_element(kind, data, generator, axis)
            moved = self.model(element.on_data(data, o3.Irreps("0e")))
            terms = []
            for name, output in outputs.items():
                difference = named_output(name, moved[name]).value - element.on_output(output)
                terms.append((difference / scales.get(name, 1.0)).square().mean())
            found[symmetry] = torch.stack(terms).mean()
        return found

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
        """Follow the errors and, when it is time, tune the strengths; tensors in use by autograd stay as they are."""
        self.calls = self.calls + 1
        weight = 1 / self.calls.clamp(max=_MEMORY).to(errors)
        self.errors = self.errors + weight * (errors - self.errors)
        if self.tune_after is not None and int(self.calls) == self.tune_after:
            self.strengths = tuned_strengths(self.strengths, self.errors, self.power, rounding)


def tuned_strengths(strengths: Tensor, errors: Tensor, power: float, rounding: float = 0.0) -> Tensor:
    """``λ_g (min_h R_h / R_g)^power``, of those symmetries whose error is above rounding and whose strength above 0.

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
    """Root mean square of what is left of a target without what needs no network; 1 where there is no such target."""
    given = (part for part in parts if isinstance(getattr(part, name, None), Tensor) and part[name].numel())
    known = field(name)
    if known.irreps == "0e":
        if known.level == "graph":
            first = next(given, None)
            return 1.0 if first is None else fit_references(chain([first], given), name, known.extensive).spread
        fit = LeastSquares(1)
        for part in given:
            values = part[name].reshape(-1)
            fit.add(torch.ones_like(values).unsqueeze(1), values)
        return fit.solve()[1] or 1.0
    rest = RootMeanSquare()
    for part in given:
        moved = known.translates and known.level == "node"
        rest.add(part[name].double() - part.pos if moved else part[name])
    return rest.value or 1.0
