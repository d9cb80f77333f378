"""Model for TorchSim: molecular dynamics and relaxation of many systems at once, on one device."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from geoeq.data.structures import model_inputs
from geoeq.errors import InputError
from geoeq.models import Model
from geoeq.resources import import_extra
from geoeq.simulate.md.thermo import ENERGY_UNCERTAINTY, FORCES_UNCERTAINTY
from geoeq.simulate.potential import as_potential
from geoeq.trust import Trust

import_extra("torch_sim", "torchsim")
from torch_sim import SimState  # noqa: E402
from torch_sim.models.interface import ModelInterface  # noqa: E402

__all__ = ["TorchSimModel"]

#: Outputs passed to TorchSim, which uses the first three; since 0.6 (0.3 ignores them), its states keep the others.
_OUTPUTS = ("energy", "forces", "stress", ENERGY_UNCERTAINTY, FORCES_UNCERTAINTY)


class TorchSimModel(ModelInterface):  # type: ignore[misc]  # of an optional package
    """Potential for TorchSim: ``torch_sim.integrate(systems, TorchSimModel("runs/md"), integrator=...)``.

    All systems of a state form one batch. Edges are built at each call, on the device of the model.

    Args:
        model: folder of a ``geoeq train`` run, a checkpoint, name of a fetched published potential, or a Model.
        device: "auto" (a GPU if available), "cpu", "cuda" ...
        dtype: dtype of the states; positions may have more digits than the model, which preserves energies and momenta.
        stress: whether to compute the stress; None computes it if the model has a cutoff. It is omitted for systems
            that are not periodic.
        trust: modules outside geoeq whose classes the checkpoint may name, as for ``load_checkpoint``.

    Shapes:
        energy: [G] eV. forces: [N, 3] eV/Å. stress: [G, 3, 3] eV/Å^3. Models with an uncertainty also return
        energy_uncertainty: [G] eV and, for ensembles, forces_uncertainty: [N] eV/Å.

    Attributes:
        model: the model that is evaluated.
        conservative: whether the forces are derivatives of the energy. If not, total energies drift.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        InputError: the model predicts no energy or no forces. On evaluation: a system is invalid (``geoeq.checks``).
        MissingExtraError: TorchSim is not installed.
    """

    def __init__(
        self,
        model: str | Path | Model,
        device: str | torch.device = "auto",
        *,
        dtype: torch.dtype = torch.float64,
        stress: bool | None = None,
        trust: Trust = False,
    ) -> None:
        super().__init__()
        self.model = as_potential(model, device, stress=stress, trust=trust)
        lacking = {"energy", "forces"} - set(self.model.fields)
        if lacking:
            raise InputError(f"{self.model.title} predicts no {' and no '.join(sorted(lacking))}; TorchSim needs both.")
        self.conservative = self.model.conservative
        parameter = next(self.model.parameters())
        if dtype not in (parameter.dtype, torch.float64):
            raise InputError(f"States in {dtype} have fewer digits than the model in {parameter.dtype}: use float64.")
        self._device, self._dtype = parameter.device, dtype
        self._compute_forces, self._compute_stress = True, "stress" in self.model.fields
        self._memory_scales_with = "n_atoms" if self.model.cutoff is None else "n_atoms_x_density"

    def forward(self, state: SimState, **options: object) -> dict[str, Tensor]:
        """Compute energies, forces and stresses of a state, which is not changed; options have no effect."""
        if isinstance(state, dict):
            state = SimState(**state)
        pbc = torch.as_tensor(state.pbc, device=state.positions.device)
        periodic = bool(pbc.any())
        data = model_inputs(
            state.atomic_numbers,
            state.positions,
            batch=state.system_idx,
            cell=state.row_vector_cell.contiguous() if periodic else None,  # TorchSim stores cell vectors as columns
            pbc=pbc.expand(len(state.cell), 3) if periodic else None,
        )
        with torch.no_grad():
            outputs = self.model(data)
        return {name: value.to(self.dtype) for name, value in outputs.items() if name in _OUTPUTS}
