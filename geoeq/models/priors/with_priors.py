"""Priors: what is known of an energy is added to what a network learns."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from geoeq import kernels
from geoeq.errors import FieldError, InputError
from geoeq.graph import in_dtype
from geoeq.models.heads.scalar_heads import GraphScalar
from geoeq.models.networks.egnn import EGNN
from geoeq.models.priors.prior import Prior
from geoeq.models.priors.zbl import ZBL
from geoeq.models.training_set import TrainingSet, in_parts, known_elements
from geoeq.models.wrappers.wrapper import SameSymmetry
from geoeq.pointers import batch_from_ptr, graph_pointers

__all__ = ["WithPriors"]

#: Atoms whose priors are computed at once when heads are fitted.
ATOMS_AT_ONCE = 256


class WithPriors(SameSymmetry):
    """A network whose energy is that of priors and what it learns beside them.

    ``E = E_network + Σ_priors Σ_atoms E_i``, in float64; where the network gives "atomic_energies", E_i is added to
    those as well. ``Forces`` goes around it: forces and stress are then those of the whole.

    ``fit_heads`` fits references, shift and scale of the network to what the priors leave of energies and forces of
    the training set. A prior that reads outputs of the network, such as learnt charges, leaves what it will after
    training, and is not subtracted.

    Args:
        model: gives "energy", what the priors need, and whatever else; neither forces nor stress.
        priors: one or several.

    Shapes:
        energy: [G] eV. atomic_energies: [N] eV.

    Raises:
        FieldError: the network lacks an output, or gives forces of its own, in which those of the priors would be
            missing.
        InputError: there is no prior; or, while torch.compile looks, one reaches beyond the edges that are given.
    """

    def __init__(self, model: nn.Module, priors: Sequence[Prior]) -> None:
        super().__init__(model)
        if not priors:
            raise InputError("WithPriors without a prior: name one, such as ZBL(), or take the network itself.")
        for prior in priors:
            if not isinstance(prior, Prior):
                raise InputError(f"A {type(prior).__name__} is not a geoeq.models.Prior.")
        self.priors = nn.ModuleList(priors)
        given = getattr(model, "fields", None)
        if given is not None:
            _check(type(model).__name__, set(given), priors)

    @classmethod
    def example(cls) -> Self:
        return cls(EGNN([GraphScalar("energy", atomic=True)], width=8, layers=1, cutoff=3.0), [ZBL()])

    @property
    def title(self) -> str:
        """Of what the energy is: "EGNN + ZBL"."""
        inner = getattr(self.model, "title", type(self.model).__name__)
        return " + ".join([str(inner), *(type(prior).__name__ for prior in self.priors)])

    def forward(self, data: Data) -> dict[str, Tensor]:
        """What the network gives, with the energies of the priors.

        Raises:
            InputError: a structure cannot be what was meant.
        """
        outputs: dict[str, Tensor] = dict(self.model(data))
        if "energy" not in outputs:
            _check(type(self.model).__name__, set(outputs), ())
        with torch.autocast(data.pos.device.type, enabled=False):
            atoms = self.atomic(data, outputs)
            ptr = graph_pointers(data)
            batch = batch_from_ptr(ptr, atoms.shape[0])
            outputs["energy"] = outputs["energy"] + kernels.segment_sum(atoms, batch, ptr.shape[0] - 1)
        if "atomic_energies" in outputs:
            outputs["atomic_energies"] = outputs["atomic_energies"] + atoms
        return outputs

    def atomic(self, data: Data, outputs: dict[str, Tensor]) -> Tensor:
        """The energies that the priors give to atoms beside these outputs of the network, [N] eV.

        Raises:
            InputError: while torch.compile or torch.export looks, a prior reaches beyond the edges that are given.
        """
        if torch.compiler.is_compiling():
            self._check_reach()
        exact = data if data.pos.dtype == torch.float64 else in_dtype(data, torch.float64)
        return torch.stack([prior(exact, outputs) for prior in self.priors]).sum(0)

    def fit_heads(self, data: TrainingSet, elements: Any = None) -> None:
        """Fit the heads of the network to what the priors leave."""
        parts = in_parts(data)
        known = [prior for prior in self.priors if not prior.needs]
        # The elements first: the priors are computed anew each time that one goes through what they leave.
        super().fit_heads(_Left(known, parts) if known else parts, elements or known_elements(parts))

    def _check_reach(self) -> None:
        for prior in self.priors:
            reach = prior.reach(self.elements)  # type: ignore[operator]
            if self.cutoff is None or reach > self.cutoff:
                raise InputError(
                    f"{type(prior).__name__} reaches {reach:.3g} Å and the edges of {self.title} "
                    f"{'all atoms' if self.cutoff is None else f'{self.cutoff:g} Å'}: as one graph it has the edges of "
                    "the network alone. Give the prior a cutoff that is no larger, or do not compile or export it."
                )


def _check(name: str, given: set[str], priors: Sequence[Prior]) -> None:
    if "energy" not in given:
        raise FieldError(f"{name} gives {', '.join(sorted(given))}: priors are added to an 'energy'.")
    own = {"forces", "stress"} & given
    if own:
        raise FieldError(
            f"{name} gives {' and '.join(sorted(own))} of its own, in which those of the priors would be missing: "
            "leave that head out and put Forces around the priors, as in Forces(WithPriors(model, priors))."
        )
    for prior in priors:
        lacking = set(prior.needs) - given
        if lacking:
            heads = ", ".join(type(head).__name__ for head in prior.heads()) or "one"
            raise FieldError(
                f"{type(prior).__name__} needs {' and '.join(sorted(lacking))}, and {name} gives "
                f"{', '.join(sorted(given))}: give it a head for that ({heads})."
            )


class _Left:
    """A training set without the energies and forces of priors."""

    def __init__(self, priors: Sequence[nn.Module], parts: Iterable[Data]) -> None:
        self._priors, self._parts = priors, parts

    def __iter__(self) -> Iterator[Data]:
        for part in self._parts:
            if getattr(part, "energy", None) is None:
                yield part
                continue
            energy, forces = _summed(self._priors, part)
            left = copy.copy(part)
            left.energy = part.energy.reshape(-1).double() - energy
            if getattr(part, "forces", None) is not None:
                left.forces = part.forces.double() - forces
            yield left


def _summed(priors: Sequence[nn.Module], data: Data) -> tuple[Tensor, Tensor]:
    """Energies [G] and forces [N, 3] of priors, a few structures at a time."""
    ptr = graph_pointers(data)
    energies, forces = [], []
    start, count = 0, len(ptr) - 1
    while start < count:
        limit = int(torch.searchsorted(ptr, ptr[start] + ATOMS_AT_ONCE, right=True)) - 1
        stop = min(max(limit, start + 1), count)
        part = _some(data, ptr, start, stop)
        part.pos.requires_grad_()
        with torch.enable_grad():
            atoms = torch.stack([prior(part, {}) for prior in priors]).sum(0)
            found = torch.zeros_like(part.pos)
            if atoms.requires_grad:
                (found,) = torch.autograd.grad(atoms.sum(), part.pos, materialize_grads=True)
        energies.append(kernels.segment_sum(atoms.detach(), part.batch, stop - start))
        forces.append(-found)
        start = stop
    return torch.cat(energies), torch.cat(forces)


def _some(data: Data, ptr: Tensor, start: int, stop: int) -> Data:
    """Structures from ``start`` to before ``stop``: elements, positions and cells, in float64."""
    nodes, graphs = slice(int(ptr[start]), int(ptr[stop])), slice(start, stop)
    part = Data(pos=data.pos[nodes].detach().double().clone(), ptr=ptr[start : stop + 1] - ptr[start])
    part.batch = batch_from_ptr(part.ptr, len(part.pos))
    if getattr(data, "z", None) is not None:
        part.z = data.z[nodes]
    if getattr(data, "cell", None) is not None:
        part.cell = data.cell.reshape(-1, 3, 3)[graphs].detach().double()
    if getattr(data, "pbc", None) is not None:
        part.pbc = data.pbc.reshape(-1, 3)[graphs]
    return part
