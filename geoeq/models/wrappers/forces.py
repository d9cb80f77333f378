"""Forces and stress as derivatives of a predicted energy."""

from __future__ import annotations

import copy
from typing import Self

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from geoeq.errors import FieldError, InputError
from geoeq.fields import Field, field
from geoeq.geometry.lattice import cell_faults
from geoeq.models.heads.scalar_heads import GraphScalar
from geoeq.models.networks.egnn import EGNN
from geoeq.models.wrappers.wrapper import SameSymmetry
from geoeq.pointers import batch_from_ptr, graph_pointers

__all__ = ["Forces", "has_volume", "stretch"]


class Forces(SameSymmetry):
    """A network that predicts an energy, with its forces and its stress from one backward pass.

    ``F_i = -∂E/∂r_i`` and ``σ = (1/V) ∂E/∂ε``, where a strain ε maps positions and cell vectors r to (1 + ε) r: the
    sign of ASE, positive if the structure tends to shrink. V is the volume of the cell, whichever directions are
    periodic: for a slab it includes the vacuum, as in ASE.

    If gradients are enabled, forces can be differentiated (to train with them, or for Hessians). Under
    ``torch.no_grad()`` they cannot, which saves memory.

    Args:
        model: network that predicts "energy" and possibly other outputs, but neither forces nor stress.
        stress: also predict the stress of periodic structures.

    Shapes:
        forces: [N, 3] eV/Å. stress: [G, 3, 3] eV/Å^3, symmetric; present if every structure of the batch is periodic
        and its cell has a volume, and missing otherwise.

    Raises:
        FieldError: the network predicts no energy, or predicts forces or a stress itself.

    Source:
        Stress by strain: Knuth et al., Comput. Phys. Commun. 190, 33 (2015), arXiv:1503.03765, section 2.
    """

    def __init__(self, model: nn.Module, stress: bool = False) -> None:
        super().__init__(model)
        self.stress = stress
        outputs = getattr(model, "fields", None)
        if outputs is not None:
            if "energy" not in outputs:
                raise FieldError(f"{type(model).__name__} predicts {', '.join(outputs)}: forces need an 'energy'.")
            direct = {"forces", "stress"} & set(outputs)
            if direct:
                raise FieldError(
                    f"{type(model).__name__} predicts {' and '.join(sorted(direct))} directly: leave that head out, or "
                    "use the network without Forces."
                )

    @classmethod
    def example(cls) -> Self:
        return cls(EGNN([GraphScalar("energy")], width=8, layers=1, cutoff=3.0), stress=True)

    @property
    def title(self) -> str:
        """Name of the network inside."""
        return str(getattr(self.model, "title", type(self.model).__name__))

    @property
    def fields(self) -> dict[str, Field]:
        """Fields of the network inside, forces, and the stress."""
        names = ["forces", "stress"] if self.stress else ["forces"]
        return super().fields | {name: field(name) for name in names}

    @property
    def conservative(self) -> bool:
        """True, as forces are minus the derivative of the energy."""
        return True

    def forward(self, data: Data) -> dict[str, Tensor]:
        """Return energy, forces, stress, and the other outputs of the network.

        Raises:
            InputError: a structure is invalid.
        """
        keep = torch.is_grad_enabled()
        with torch.enable_grad():
            moved = copy.copy(data)
            pos = data.pos if data.pos.requires_grad and keep else data.pos.detach().requires_grad_()
            moved.pos, inputs = pos, [pos]
            if self.stress and bool(has_volume(data).all()):
                strain = pos.new_zeros(data.cell.reshape(-1, 3, 3).shape, requires_grad=True)  # [G, 3, 3]
                inputs.append(strain)
                stretch(moved, (strain + strain.mT) / 2)
            outputs: dict[str, Tensor] = dict(self.model(moved))
            if "energy" not in outputs:
                raise InputError(f"{type(self.model).__name__} returned {', '.join(outputs)}: forces need an 'energy'.")
            derivatives = _derivatives(outputs["energy"], inputs, keep)
        outputs["forces"] = -derivatives[0]
        if len(derivatives) > 1:
            volume = torch.linalg.det(data.cell.reshape(-1, 3, 3)).abs()
            outputs["stress"] = derivatives[1] / volume[:, None, None]
        return outputs if keep else {name: value.detach() for name, value in outputs.items()}


def has_volume(data: Data) -> Tensor:
    """Return which structures have a stress, [G]: those that are periodic and whose cell has a volume."""
    if getattr(data, "cell", None) is None or getattr(data, "pbc", None) is None:
        return torch.zeros(1, dtype=torch.bool, device=data.pos.device)
    pbc = data.pbc.reshape(-1, 3)
    periodic: Tensor = pbc.any(-1) & ~cell_faults(data.cell.reshape(-1, 3, 3), torch.ones_like(pbc))
    return periodic


def stretch(data: Data, strain: Tensor) -> None:
    """Replace the positions, and cells if there are any, of ``data`` by those after a strain [G, 3, 3]."""
    batch = batch_from_ptr(graph_pointers(data), data.pos.shape[0])
    data.pos = data.pos + torch.einsum("nx,nxy->ny", data.pos, strain.index_select(0, batch))
    if getattr(data, "cell", None) is not None:
        data.cell = data.cell + (data.cell.reshape(-1, 3, 3) @ strain).reshape(data.cell.shape)


def _derivatives(energy: Tensor, inputs: list[Tensor], keep: bool) -> list[Tensor]:
    """Return the gradients of the summed energy; zero if it depends on no input."""
    if not energy.requires_grad:
        return [torch.zeros_like(tensor) for tensor in inputs]
    return list(torch.autograd.grad(energy.sum(), inputs, create_graph=keep, materialize_grads=True))
