"""A model for TorchSim: molecular dynamics and relaxation of many systems at once, on one device."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch_geometric.data import Data

from geoeq.errors import InputError
from geoeq.models import Model
from geoeq.resources import import_extra
from geoeq.simulate.md.thermo import OF_FORCES, UNCERTAIN
from geoeq.simulate.potential import as_potential

import_extra("torch_sim", "torchsim")
from torch_sim import SimState  # noqa: E402
from torch_sim.models.interface import ModelInterface  # noqa: E402

__all__ = ["TorchSimModel"]

#: What goes on to TorchSim, which takes the first three and leaves the others alone.
_GIVEN = ("energy", "forces", "stress", UNCERTAIN, OF_FORCES)


class TorchSimModel(ModelInterface):  # type: ignore[misc]  # of a package that need not be there
    """A potential for TorchSim: ``torch_sim.integrate(systems, TorchSimModel("runs/md"), integrator=...)``.

    All systems of a state are one batch of the model. Edges are found at each call, on the device of the model.

    Args:
        model: a run of ``geoeq train``, a checkpoint, or a Model.
        device: "auto" (a GPU where there is one), "cpu", "cuda" ...
        dtype: of the states; positions may have more digits than the model, which keeps energies and momenta.
        stress: give a stress; None where the model has a cutoff. It is left out for systems that are not periodic.
        trust: import and run classes that are not part of geoeq, where the checkpoint names any.

    Shapes:
        energy: [G] eV. forces: [N, 3] eV/Å. stress: [G, 3, 3] eV/Å^3. Of what knows its uncertainty also
        energy_uncertainty: [G] eV and, of an ensemble, forces_uncertainty: [N] eV/Å.

    Attributes:
        model: what is evaluated.
        conservative: whether the forces are derivatives of the energy. Where not, total energies drift.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        InputError: the model gives no energy or no forces. On evaluation: a system cannot be what was meant
            (``geoeq.checks``).
        MissingExtraError: TorchSim is not installed.
    """

    def __init__(
        self,
        model: str | Path | Model,
        device: str | torch.device = "auto",
        *,
        dtype: torch.dtype = torch.float64,
        stress: bool | None = None,
        trust: bool = False,
    ) -> None:
        super().__init__()
        self.model = as_potential(model, device, stress=stress, trust=trust)
        lacking = {"energy", "forces"} - set(self.model.fields)
        if lacking:
            raise InputError(f"{self.model.title} gives no {' and no '.join(sorted(lacking))}, which TorchSim needs.")
        self.conservative = self.model.conservative
        parameter = next(self.model.parameters())
        if dtype not in (parameter.dtype, torch.float64):
            raise InputError(f"States in {dtype} have fewer digits than the model, which is {parameter.dtype}.")
        self._device, self._dtype = parameter.device, dtype
        self._compute_forces, self._compute_stress = True, "stress" in self.model.fields
        self._memory_scales_with = "n_atoms" if self.model.cutoff is None else "n_atoms_x_density"

    def forward(self, state: SimState) -> dict[str, Tensor]:
        """Energies, forces and stresses of a state, which is not changed."""
        if isinstance(state, dict):
            state = SimState(**state)
        data = Data(pos=state.positions, z=state.atomic_numbers.long(), batch=state.system_idx)
        periodic = torch.as_tensor(state.pbc, device=data.pos.device)
        if bool(periodic.any()):
            data.cell = state.row_vector_cell.contiguous()  # TorchSim holds cell vectors as columns
            data.pbc = periodic.expand(len(data.cell), 3)
        with torch.no_grad():
            outputs = self.model(data)
        return {name: value.to(self.dtype) for name, value in outputs.items() if name in _GIVEN}
