"""Wrapper that adds priors, known contributions to the energy, to a network."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from geoeq import kernels
from geoeq.derivatives import derivatives, differentiable, gradients_enabled
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

#: Number of atoms whose priors are computed at once when heads are fitted.
ATOMS_AT_ONCE = 256


class WithPriors(SameSymmetry):
    """A network whose energy is the sum of priors and a learned energy.

    ``E = E_network + Σ_priors Σ_atoms E_i``, in float64; if the network predicts "atomic_energies", E_i is added to
    these as well. ``Forces`` wraps it, so that forces and stress are those of the sum.

    ``fit_heads`` fits references, shift and scale of the network to the energies and forces of the training set minus
    those of the priors. Priors that read outputs of the network, such as learned charges, are not subtracted, as they
    are not known before training.

    Args:
        model: network that predicts "energy", the outputs that the priors need and possibly others, but neither forces
            nor stress.
        priors: one or more priors.

    Shapes:
        energy: [G] eV. atomic_energies: [N] eV.

    Raises:
        FieldError: the network lacks an output, or predicts forces directly, which would lack those of the priors.
        InputError: there is no prior; or, under torch.compile, a prior reaches beyond the given edges.
    """

    def __init__(self, model: nn.Module, priors: Sequence[Prior]) -> None:
        super().__init__(model)
        if not priors:
            raise InputError("WithPriors has no prior: pass one, such as ZBL(), or use the network itself.")
        for prior in priors:
            if not isinstance(prior, Prior):
                raise InputError(f"A {type(prior).__name__} is not a geoeq.models.Prior.")
        self.priors = nn.ModuleList(priors)
        outputs = getattr(model, "fields", None)
        if outputs is not None:
            _check(type(model).__name__, set(outputs), priors)

    @classmethod
    def example(cls) -> Self:
        return cls(EGNN([GraphScalar("energy", atomic=True)], width=8, layers=1, cutoff=3.0), [ZBL()])

    @property
    def title(self) -> str:
        """Names of the terms of the energy, such as "EGNN + ZBL"."""
        inner = getattr(self.model, "title", type(self.model).__name__)
        return " + ".join([str(inner), *(type(prior).__name__ for prior in self.priors)])

    def forward(self, data: Data) -> dict[str, Tensor]:
        """Return the outputs of the network, with the energies of the priors added.

        Raises:
            InputError: a structure is invalid.
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
        """Return the sum of the atomic energies of the priors, [N] eV, with these outputs of the network.

        Raises:
            InputError: under torch.compile or torch.export, a prior reaches beyond the given edges.
        """
        if torch.compiler.is_compiling():
            self._check_reach()
        exact = data if data.pos.dtype == torch.float64 else in_dtype(data, torch.float64)
        return torch.stack([prior(exact, outputs) for prior in self.priors]).sum(0)

    def fit_heads(self, data: TrainingSet, elements: Any = None) -> None:
        """Fit the heads of the network to the training set minus the priors."""
        parts = in_parts(data)
        known = [prior for prior in self.priors if not prior.needs]
        # Find the elements first: the priors are recomputed in each pass over the residuals.
        super().fit_heads(_Residuals(known, parts) if known else parts, elements or known_elements(parts))

    def _check_reach(self) -> None:
        for prior in self.priors:
            reach = prior.reach(self.elements)  # type: ignore[operator]
            if self.cutoff is None or reach > self.cutoff:
                raise InputError(
                    f"{type(prior).__name__} reaches {reach:.3g} Å and the edges of {self.title} "
                    f"{'all atoms' if self.cutoff is None else f'{self.cutoff:g} Å'}: compiled or exported, it has "
                    "only the edges of the network. Give the prior a cutoff that is no larger."
                )


def _check(name: str, outputs: set[str], priors: Sequence[Prior]) -> None:
    """Check that a network has what priors need."""
    if "energy" not in outputs:
        raise FieldError(f"{name} predicts {', '.join(sorted(outputs))}: priors are added to an 'energy'.")
    direct = {"forces", "stress"} & outputs
    if direct:
        raise FieldError(
            f"{name} predicts {' and '.join(sorted(direct))} directly, without those of the priors: leave that head "
            "out and apply Forces to the sum, as in Forces(WithPriors(model, priors))."
        )
    for prior in priors:
        missing = set(prior.needs) - outputs
        if missing:
            heads = ", ".join(type(head).__name__ for head in prior.heads()) or "one"
            raise FieldError(
                f"{type(prior).__name__} needs {' and '.join(sorted(missing))}, and {name} predicts "
                f"{', '.join(sorted(outputs))}: add a head for that ({heads})."
            )


class _Residuals:
    """A training set minus the energies and forces of priors."""

    def __init__(self, priors: Sequence[nn.Module], parts: Iterable[Data]) -> None:
        self._priors, self._parts = priors, parts

    def __iter__(self) -> Iterator[Data]:
        for part in self._parts:
            if getattr(part, "energy", None) is None:
                yield part
                continue
            energy, forces = _summed(self._priors, part)
            residual = copy.copy(part)
            residual.energy = part.energy.reshape(-1).double() - energy
            if getattr(part, "forces", None) is not None:
                residual.forces = part.forces.double() - forces
            yield residual


def _summed(priors: Sequence[nn.Module], data: Data) -> tuple[Tensor, Tensor]:
    """Return energies [G] and forces [N, 3] of priors, computed for a few structures at a time."""
    ptr = graph_pointers(data)
    energies, forces = [], []
    start, count = 0, len(ptr) - 1
    while start < count:
        limit = int(torch.searchsorted(ptr, ptr[start] + ATOMS_AT_ONCE, right=True)) - 1
        stop = min(max(limit, start + 1), count)
        part = _slice(data, ptr, start, stop)
        with gradients_enabled():
            part = differentiable(part)
            part.pos.requires_grad_()
            atoms = torch.stack([prior(part, {}) for prior in priors]).sum(0)
            (gradient,) = derivatives(atoms, part, name="energy of the priors")
        energies.append(kernels.segment_sum(atoms.detach(), part.batch, stop - start))
        forces.append(-gradient)
        start = stop
    return torch.cat(energies), torch.cat(forces)


def _slice(data: Data, ptr: Tensor, start: int, stop: int) -> Data:
    """Return the structures from ``start`` to before ``stop``: elements, positions and cells, in float64."""
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
