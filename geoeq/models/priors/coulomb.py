"""Electrostatics: the energy of charges that a network gives to atoms, at any distance."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any, ClassVar, Literal, Self, get_args

import torch
from torch import Tensor
from torch_geometric.data import Data

from geoeq import kernels
from geoeq.errors import CellError, InputError, unknown_name
from geoeq.geometry.neighbors import edge_lengths, full_edges
from geoeq.geometry.neighbors.edges import edge_vectors
from geoeq.models.heads.head import Head
from geoeq.models.heads.scalar_heads import NodeScalar
from geoeq.models.priors.prior import Prior
from geoeq.pointers import batch_from_ptr, graph_pointers
from geoeq.resources import import_extra
from geoeq.units import conversion

__all__ = ["Coulomb", "PeriodicSum"]

PeriodicSum = Literal["ewald", "pme"]

#: waves whose weight is below this part of that of the longest are left out.
PRECISION = 1e-12

#: points of a mesh to the length √2 times the width, and those of an interpolation along each axis.
MESH, NODES = 2, 7


class Coulomb(Prior):
    """The energy of smeared point charges: "charges" of the network, each a Gaussian about its atom.

    ``E = k Σ_pairs q_i q_j erf(r / 2w) / r``: at a distance the law of Coulomb, and finite where Gaussians of width w
    overlap, in which chemistry is the network's affair. The energy of each Gaussian in itself is not counted.

    Open structures have a sum over all pairs. Periodic ones have the same sum with all images, in reciprocal space
    alone (the charges are smooth), by torch-pme: surrounded by a conductor, and a net charge with a uniform background
    that neutralises it. For slabs the waves between their images are taken away; they need some vacuum.

    The charges are learnt through the energy, and from a target "charges" where there is one. With the head
    ``NodeScalar("charges", conserve=True)`` their sum is the net charge of the structure.

    Args:
        width: w, in Å. Waves, and the time of periodic structures, grow as its third power falls.
        method: of periodic structures: "ewald" sums waves exactly, in a time that grows as the square of the atoms;
            "pme" on a mesh, to eight digits or so, in a time that grows little faster than the atoms.

    Shapes:
        Returns [N] eV, float64: each atom has half of the energy of its pairs.

    Raises:
        MissingExtraError: a structure is periodic and the extra "electrostatics" is not installed.
        InputError: the method is unknown, or the width not positive.
        CellError: a structure is periodic in one direction alone, which has no such sum here.

    Source:
        Ewald, Ann. Phys. 369, 253 (1921); PME: Darden, York & Pedersen, J. Chem. Phys. 98, 10089 (1993);
        torch-pme: Loche et al., J. Chem. Phys. 162, 142501 (2025), arXiv:2412.03281; slabs: Yeh & Berkowitz,
        J. Chem. Phys. 111, 3155 (1999).
    """

    needs: ClassVar[tuple[str, ...]] = ("charges",)

    def __init__(self, width: float = 1.0, method: PeriodicSum = "ewald") -> None:
        super().__init__()
        if not (width > 0 and math.isfinite(width)):
            raise InputError(f"width must be a positive number of Å, not {width}.")
        if method not in get_args(PeriodicSum):
            raise InputError(unknown_name("method of periodic charges", method, get_args(PeriodicSum)))
        self.width, self.method = float(width), method
        self.strength = conversion("Ha*a0", "eV*Å")

    @classmethod
    def example(cls) -> Self:
        return cls()

    def heads(self) -> list[Head]:
        """Charges that are conserved."""
        return [NodeScalar("charges", conserve=True)]

    def forward(self, data: Data, outputs: Mapping[str, Tensor]) -> Tensor:
        """Half of the energy of its pairs for each atom."""
        charges, ptr = outputs["charges"].double(), graph_pointers(data)
        periodic = _periodic(data, len(ptr) - 1)  # [G, 3]
        energies = torch.zeros_like(charges)
        inside = (~periodic.any(1))[batch_from_ptr(ptr, len(charges))].nonzero().squeeze(1)
        if len(inside):
            counts = ptr.diff()[~periodic.any(1)]
            alone = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
            found = charges[inside] * self._open(data.pos[inside], charges[inside], alone)
            energies = energies.index_add(0, inside, found)
        for graph in periodic.any(1).nonzero().squeeze(1).tolist():
            nodes = torch.arange(int(ptr[graph]), int(ptr[graph + 1]), device=ptr.device)
            cell = data.cell.reshape(-1, 3, 3)[graph]
            found = charges[nodes] * self._images(data.pos[nodes], charges[nodes], cell, periodic[graph])
            energies = energies.index_add(0, nodes, found)
        return self.strength * energies

    def _open(self, positions: Tensor, charges: Tensor, ptr: Tensor) -> Tensor:
        """Half of the potential at each atom, in e/Å, [N]."""
        edges = full_edges(ptr)
        batch = batch_from_ptr(ptr, len(positions))
        lengths = edge_lengths(edge_vectors(positions, edges.sender, edges.receiver, None, None, batch))
        potential = charges.index_select(0, edges.sender) * torch.erf(lengths / (2 * self.width)) / lengths
        return kernels.segment_sum(potential, edges.receiver, len(positions)) / 2

    def _images(self, positions: Tensor, charges: Tensor, cell: Tensor, periodic: Tensor) -> Tensor:
        """The same for one structure and all its images."""
        calculator = _calculator(_torchpme(), self.method, self.width)
        nobody = torch.zeros(0, 2, dtype=torch.int64, device=positions.device)  # the sum has no part in real space
        potential: Tensor = calculator.to(positions.device)(
            charges.unsqueeze(1), cell, positions, nobody, positions.new_zeros(0), periodic=periodic
        )
        return potential.squeeze(1)


@functools.cache
def _torchpme() -> ModuleType:
    """torch-pme without its interface to metatensor, which, if that is installed, cannot be imported beside PyG.

    TorchScript does not read PyG's ``torch.index_select``, which metatensor's operations call.
    """
    interface = "torchpme.metatensor"
    hidden = "torchpme" not in sys.modules
    if hidden:
        sys.modules[interface] = None  # type: ignore[assignment]  # an import of it fails as if it were not there
    try:
        return import_extra("torchpme", "electrostatics")
    finally:
        if hidden:
            del sys.modules[interface]


def _periodic(data: Data, count: int) -> Tensor:
    """In which directions each structure is periodic, [G, 3]."""
    pbc = getattr(data, "pbc", None)
    if pbc is None:
        return torch.zeros(count, 3, dtype=torch.bool, device=data.pos.device)
    periodic: Tensor = pbc.reshape(-1, 3)
    wires = periodic.sum(1) == 1
    if bool(wires.any()):
        raise CellError(
            f"Graph {int(wires.nonzero()[0, 0])} is periodic in one direction alone: electrostatics sums over images "
            "in two directions or three. Set pbc to True in another one, with vacuum in the cell, or to False in all."
        )
    return periodic


def _calculator(library: ModuleType, method: str, width: float) -> Any:
    """Of torch-pme; its width is that of the product of two Gaussians."""
    smearing = math.sqrt(2) * width
    potential = library.CoulombPotential(smearing=smearing)
    if method == "pme":
        return library.PMECalculator(potential, mesh_spacing=smearing / MESH, interpolation_nodes=NODES)
    largest = math.sqrt(-2 * math.log(PRECISION)) / smearing
    # Its waves along an axis are half as many as the wavelength that it is given would have.
    return library.EwaldCalculator(potential, lr_wavelength=math.pi / largest)
