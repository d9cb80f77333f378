"""ZBL: repulsion of nuclei at very short distances, which few data sets cover."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor
from torch_geometric.data import Data

from geoeq import kernels
from geoeq.errors import TensorError, check_positive, check_sizes
from geoeq.fields import NUM_ELEMENTS
from geoeq.layers.radial.envelope import PolynomialEnvelope
from geoeq.models.priors.prior import Prior, pairs_within
from geoeq.units import conversion

__all__ = ["ZBL"]

#: the universal screening function: Σ c exp(-d x), with x the distance in screening lengths.
_SCREENING = ((0.18175, 3.19980), (0.50986, 0.94229), (0.28022, 0.40290), (0.02817, 0.20162))

#: the screening length is this many Bohr radii over the sum of Z to the power of the other.
_LENGTH, _POWER = 0.8854, 0.23


def _covalent_radii() -> tuple[float, ...]:
    """Return the covalent radius of each atomic number, in Å."""
    from ase.data import covalent_radii

    return tuple(map(float, covalent_radii[:NUM_ELEMENTS]))


class ZBL(Prior):
    """Repulsion of screened nuclei, smoothly switched off at bonding distances.

    ``E = Σ_pairs k Z_i Z_j / r · φ(r / a) · f(r / r_c)`` with the universal screening function φ, the screening length
    ``a = 0.8854 a0 / (Z_i^0.23 + Z_j^0.23)`` and f the polynomial envelope, whose value, slope and curvature vanish at
    the cutoff r_c of the pair.

    Args:
        cutoff: cutoff radius of all pairs, in Å; None takes the sum of the two covalent radii.
        power: exponent of the envelope; with larger values it decays closer to the cutoff.

    Shapes:
        Returns [N] eV, float64: each atom has half of the energy of its pairs.

    Raises:
        InputError: the cutoff is not positive.
        TensorError: there are no atomic numbers.

    Source:
        Ziegler, Biersack & Littmark, The Stopping and Range of Ions in Solids (1985); covalent radii: Cordero et al.,
        Dalton Trans. 2832 (2008). Differs: f, the envelope of Gasteiger et al., arXiv:2003.03123, eq. 8.
    """

    radii: Tensor

    def __init__(self, cutoff: float | None = None, power: int = 6) -> None:
        super().__init__()
        check_sizes(self, least=2, power=power)
        check_positive(self, cutoff=cutoff)
        self.cutoff = None if cutoff is None else float(cutoff)
        self.envelope = PolynomialEnvelope(1.0, power)
        self.bohr, self.coulomb = conversion("a0", "Å"), conversion("Ha*a0", "eV*Å")
        self.covalent = _covalent_radii()
        self.register_buffer("radii", torch.tensor(self.covalent, dtype=torch.float64), persistent=False)

    @classmethod
    def example(cls) -> Self:
        return cls()

    def reach(self, elements: Sequence[int] | None = None) -> float:
        """Return the longest cutoff of a pair, in Å."""
        if self.cutoff is not None:
            return self.cutoff
        return 2 * max(self.covalent if elements is None else [self.covalent[number] for number in elements])

    def forward(self, data: Data, outputs: Mapping[str, Tensor]) -> Tensor:
        """Return half of the energy of its pairs for each atom."""
        numbers = getattr(data, "z", None)
        if numbers is None:
            raise TensorError("ZBL needs data.z, the atomic numbers [N], which is missing.")
        tracing = torch.compiler.is_compiling()
        graph = pairs_within(data, math.inf if tracing else self.reach(numbers.unique().tolist()))
        z = numbers.double()
        first, second = z.index_select(0, graph.receiver), z.index_select(0, graph.sender)  # [E]
        scaled = graph.lengths * (first**_POWER + second**_POWER) / (_LENGTH * self.bohr)
        screening = sum(factor * torch.exp(-decay * scaled) for factor, decay in _SCREENING)
        cutoff: Tensor | float | None = self.cutoff
        if cutoff is None:
            radii = self.radii.index_select(0, numbers)
            cutoff = radii.index_select(0, graph.receiver) + radii.index_select(0, graph.sender)
        switched = self.envelope(graph.lengths / cutoff).squeeze(-1)
        energy = self.coulomb * first * second / graph.lengths * screening * switched
        return kernels.segment_sum(energy, graph) / 2
