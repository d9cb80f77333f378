"""Forces and stress as derivatives of a predicted energy."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from geoeq.derivatives import derivatives, differentiable, gradients_enabled, in_transform, uncompiled, unconnected
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
    ``torch.no_grad()`` and ``torch.inference_mode()`` they cannot, which saves memory.

    ``torch.compile(Forces(...))`` compiles the network inside and differentiates it. PyTorch cannot differentiate
    compiled code twice: if gradients are enabled, the network is not compiled. ``geoeq.simulate.export_potential``
    compiles energy and forces as one program.

    Args:
        model: network that predicts "energy" and possibly other outputs, but neither forces nor stress.
        stress: also predict the stress of periodic structures.

    Shapes:
        forces: [N, 3] eV/Å. stress: [G, 3, 3] eV/Å^3, symmetric; present if every structure of the batch is periodic
        and its cell has a volume, and missing otherwise.

    Raises:
        FieldError: the network predicts no energy, or predicts forces or a stress itself.
        InputError: an option of the network makes its derivatives inexact. On evaluation: the energy is not connected
            to the positions by differentiable operations, or the parameters were created in inference mode.

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
        inexact = getattr(model, "inexact_derivatives", "")
        if inexact:
            raise InputError(
                f"{type(model).__name__} was built with {inexact}=True, as published: its derivatives are not exact, "
                f"and forces would not be those of the energy. Build it with {inexact}=False, which has the same "
                "parameters and energies."
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

    @uncompiled
    def forward(self, data: Data) -> dict[str, Tensor]:
        """Return energy, forces, stress, and the other outputs of the network.

        Raises:
            InputError: a structure is invalid, or the energy is not connected to the positions.
        """
        _graph_break()
        stress = self.stress and bool(has_volume(data).all())
        if in_transform():
            outputs, found = self._transformed(data, stress)
        elif torch.is_grad_enabled():
            outputs, found = self._uncompiled(data, stress)
        else:
            outputs, found = self._differentiated(data, stress)
        outputs["forces"] = -found[0]
        if stress:
            volume = torch.linalg.det(data.cell.reshape(-1, 3, 3)).abs()
            outputs["stress"] = found[1] / volume[:, None, None]
        return outputs

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _uncompiled(self, data: Data, stress: bool) -> tuple[dict[str, Tensor], list[Tensor]]:
        with torch.compiler.set_stance("force_eager"):  # also if the network inside is compiled
            return self._differentiated(data, stress)

    @uncompiled
    def _differentiated(self, data: Data, stress: bool) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Return the outputs of the network, and the derivatives of its energy by positions and strain."""
        keep = torch.is_grad_enabled()
        parameter = next(self.parameters(), None)
        if parameter is not None and parameter.is_inference():
            raise InputError(
                "The parameters were created within torch.inference_mode(), where nothing can be differentiated: build "
                "or load the model outside, or use copy.deepcopy(model), made outside."
            )
        with gradients_enabled():
            moved = differentiable(data)
            if not (moved.pos.requires_grad and keep):
                moved.pos = moved.pos.detach().requires_grad_()
            pos, strains = moved.pos, []
            if stress:
                strain = pos.new_zeros(data.cell.reshape(-1, 3, 3).shape, requires_grad=True)  # [G, 3, 3]
                strains.append(strain)
                stretch(moved, (strain + strain.mT) / 2)
            outputs = self._outputs(moved)
            moved.pos = pos
            found = derivatives(outputs["energy"], moved, *strains, name="energy", create_graph=keep)
            if keep:  # also constant forces can be differentiated, by the positions
                found[0] = found[0] + 0 * pos
        return outputs if keep else {name: value.detach() for name, value in outputs.items()}, found

    def _transformed(self, data: Data, stress: bool) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Do the same within a transform of ``torch.func``, where tensors cannot be marked as inputs."""

        def energy(pos: Tensor, strain: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
            moved = differentiable(data)
            moved.pos = pos
            if strain is not None:
                stretch(moved, (strain + strain.mT) / 2)
            outputs = self._outputs(moved)
            level = torch._C._functorch.maybe_get_level(outputs["energy"])  # of outer transforms, or of this one
            if level != torch._C._functorch.maybe_current_level() or not outputs["energy"].requires_grad:
                raise unconnected("energy")
            return outputs["energy"].sum(), outputs

        inputs = [data.pos, torch.zeros_like(data.cell.reshape(-1, 3, 3))] if stress else [data.pos]
        found, outputs = torch.func.grad(energy, argnums=tuple(range(len(inputs))), has_aux=True)(*inputs)
        return outputs, list(found)

    def _outputs(self, data: Data) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = dict(self.model(data))
        if "energy" not in outputs:
            raise InputError(f"{type(self.model).__name__} returned {', '.join(outputs)}: forces need an 'energy'.")
        return outputs


def _graph_break() -> None:
    """Let ``torch.compile(..., fullgraph=True)`` fail with this text."""
    torch._dynamo.graph_break(
        msg="Forces differentiates its network, which PyTorch does not compile as one graph: leave out fullgraph=True, "
        "or compile energy and forces with geoeq.simulate.export_potential."
    )


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
