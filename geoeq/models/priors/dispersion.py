"""D3 dispersion: long-range attraction that functionals lack and networks with a cutoff cannot represent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor
from torch_geometric.data import Data

from geoeq import kernels
from geoeq.errors import InputError, TensorError, UnknownElementError, check_name, check_positive
from geoeq.models.priors.prior import Prior, pairs_within
from geoeq.resources import import_extra
from geoeq.units import conversion

__all__ = ["Damping", "Dispersion"]

#: damping of Becke and Johnson, of Grimme's first version, and both as modified by Smith et al.
Damping = Literal["bj", "zero", "bjm", "zerom"]


class Dispersion(Prior):
    """Pairwise D3 dispersion with coefficients that depend on coordination numbers, computed by torch-dftd.

    Use it with the functional of the data, if they were computed without dispersion.

    Args:
        functional: name of the functional in torch-dftd: "pbe", "pbe0", "b-lyp", "b3-lyp", "rpbe", "revpbe", "tpss",
            ...
        damping: damping at short distances: "bj" (Becke and Johnson), "zero", or their modified forms "bjm" and
            "zerom".
        cutoff: cutoff radius of pairs in Å; energies decay smoothly to zero within the last Bohr radius. An atom in a
            liquid has about four thousand neighbours within 21 Å, and thirteen times as many within the published 50 Å.
        coordination_cutoff: cutoff radius of the pairs that count for coordination numbers, in Å, also smooth.

    Shapes:
        Returns [N] eV, float64: each atom has half of the energy of its pairs.

    Raises:
        MissingExtraError: the extra "dispersion" is not installed.
        InputError: the functional or damping is unknown, or a cutoff is not positive.
        UnknownElementError: an element is heavier than plutonium, the last one with coefficients in D3.
        TensorError: there are no atomic numbers.

    Source:
        Grimme et al., J. Chem. Phys. 132, 154104 (2010); "bj": Grimme, Ehrlich & Goerigk, J. Comput. Chem. 32, 1456
        (2011); "bjm" and "zerom": Smith et al., J. Phys. Chem. Lett. 7, 2197 (2016). Differs: no three-body terms;
        cutoffs are smooth.
    """

    c6ab: Tensor
    r0ab: Tensor
    rcov: Tensor
    r2r4: Tensor

    def __init__(
        self, functional: str, damping: Damping = "bj", cutoff: float = 21.0, coordination_cutoff: float = 12.0
    ) -> None:
        super().__init__()
        check_positive(self, cutoff=cutoff, coordination_cutoff=coordination_cutoff)
        check_name("damping", damping, get_args(Damping))
        self.cutoff, self.coordination_cutoff = float(cutoff), float(coordination_cutoff)
        if self.coordination_cutoff > self.cutoff:
            raise InputError(f"coordination_cutoff is {coordination_cutoff}: it must not exceed the cutoff, {cutoff}.")
        self.damping = damping
        self.constants = _constants(functional, damping)
        with torch.device("cpu"):
            tables = import_extra("torch_dftd.nn.dftd3_module", "dispersion").DFTD3Module({}, dtype=torch.float64)
        for name in ("c6ab", "r0ab", "rcov", "r2r4"):
            self.register_buffer(name, getattr(tables, name), persistent=False)
        self.energy: Callable[..., Tensor] = import_extra("torch_dftd.functions.dftd3", "dispersion").edisp
        self.bohr, self.hartree = conversion("a0", "Å"), conversion("Ha", "eV")

    @classmethod
    def example(cls) -> Self:
        return cls("pbe", cutoff=8.0, coordination_cutoff=8.0)

    def reach(self, elements: Sequence[int] | None = None) -> float:
        """Return the sum of both cutoffs, as the energies of pairs depend on coordination numbers."""
        return self.cutoff + self.coordination_cutoff

    def forward(self, data: Data, outputs: Mapping[str, Tensor]) -> Tensor:
        """Return half of the energy of its pairs for each atom."""
        numbers = getattr(data, "z", None)
        if numbers is None:
            raise TensorError("Dispersion needs data.z, the atomic numbers [N], which is missing.")
        beyond = numbers >= len(self.rcov)
        if bool(beyond.any()):
            raise UnknownElementError(
                f"Atomic number {int(numbers[beyond][0])}: D3 has coefficients up to {len(self.rcov) - 1}."
            )
        graph = pairs_within(data, self.cutoff)
        if len(graph.lengths) == 0:
            return kernels.segment_sum(graph.lengths, graph)
        energies = self.energy(
            numbers,
            graph.lengths / self.bohr,
            torch.stack([graph.receiver, graph.sender]),
            c6ab=self.c6ab,
            r0ab=self.r0ab,
            rcov=self.rcov,
            r2r4=self.r2r4,
            params=self.constants,
            cutoff=self.cutoff / self.bohr,
            cnthr=self.coordination_cutoff / self.bohr,
            batch=graph.batch,
            batch_edge=graph.receiver,  # one sum per atom instead of per structure
            cell=graph.positions,  # only its length is used, as the number of sums
            cutoff_smoothing="poly",
            damping=self.damping,
            bidirectional=True,
        )
        return self.hartree * energies


def _constants(functional: str, damping: str) -> dict[str, Any]:
    find = import_extra("torch_dftd.dftd3_xc_params", "dispersion").get_dftd3_default_params
    try:
        constants: dict[str, Any] = find(damping, functional)
    except ValueError as error:
        raise InputError(
            f"torch-dftd has no D3 constants for the functional '{functional}' with damping '{damping}'. Names "
            "are written as in pbe, b3-lyp and revpbe; its module dftd3_xc_params lists them."
        ) from error
    return constants
