"""Dispersion: the attraction of D3, which functionals lack, and networks with a cutoff cannot see."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor
from torch_geometric.data import Data

from geoeq.errors import InputError, TensorError, UnknownElementError, unknown_name
from geoeq.layers.radial.envelope import positive_cutoff
from geoeq.models.priors.prior import Prior, pairs_within
from geoeq.resources import import_extra
from geoeq.units import conversion

__all__ = ["Damping", "Dispersion"]

#: of Becke and Johnson, Grimme's first, and the two as modified by Smith et al.
Damping = Literal["bj", "zero", "bjm", "zerom"]


class Dispersion(Prior):
    """D3, the dispersion of pairs with coefficients that depend on coordination numbers; by torch-dftd.

    It belongs to the functional that the data were computed with, where they were computed without it.

    Args:
        functional: "pbe", "pbe0", "b-lyp", "b3-lyp", "rpbe", "revpbe", "tpss" .. as torch-dftd names it.
        damping: of pairs at short distance: "bj" (Becke and Johnson), "zero", or these as modified, "bjm" and "zerom".
        cutoff: of pairs, in Å; within the last Bohr radius energies go smoothly to zero. An atom in a liquid has
            some four thousand others within 21 Å, and the published 50 Å are thirteen times as many.
        coordination_cutoff: of the pairs that count for coordination numbers, in Å, smoothly as well.

    Shapes:
        Returns [N] eV, float64: each atom has half of the energy of its pairs.

    Raises:
        MissingExtraError: the extra "dispersion" is not installed.
        InputError: there is no such functional or damping, or a cutoff is not positive.
        UnknownElementError: an element is beyond plutonium, the last that D3 knows.
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
        if damping not in get_args(Damping):
            raise InputError(unknown_name("damping", damping, get_args(Damping)))
        self.cutoff, self.coordination_cutoff = positive_cutoff(cutoff), positive_cutoff(coordination_cutoff)
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
        """The cutoff, and that of coordination numbers, on which the energies of pairs depend."""
        return self.cutoff + self.coordination_cutoff

    def forward(self, data: Data, outputs: Mapping[str, Tensor]) -> Tensor:
        """Half of the energy of its pairs for each atom."""
        numbers = getattr(data, "z", None)
        if numbers is None:
            raise TensorError("Dispersion depends on elements: give data.z, the atomic numbers [N].")
        beyond = numbers >= len(self.rcov)
        if bool(beyond.any()):
            raise UnknownElementError(
                f"Atomic number {int(numbers[beyond][0])}: D3 has coefficients up to {len(self.rcov) - 1}."
            )
        graph = pairs_within(data, self.cutoff)
        if len(graph.lengths) == 0:
            return graph.lengths.new_zeros(graph.num_nodes)
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
            batch_edge=graph.receiver,  # sums for each atom in place of each structure
            cell=graph.positions,  # of which it takes the length alone, the number of sums
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
            f"torch-dftd has no constants of D3 for the functional '{functional}' with damping '{damping}'. It writes "
            "names as in pbe, b3-lyp and revpbe; its module dftd3_xc_params lists them."
        ) from error
    return constants
