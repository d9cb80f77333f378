"""Electrostatics: the long-range energy of atomic charges that a network predicts."""

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
from geoeq.errors import CellError, check_name, check_positive
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

#: waves with a weight below this fraction of that of the longest wave are left out.
PRECISION = 1e-12

#: mesh points per length √2 times the width, and interpolation nodes along each axis.
MESH, NODES = 2, 7


class Coulomb(Prior):
    """Energy of smeared point charges: the output "charges" of the network, each a Gaussian around its atom.

    ``E = k Σ_pairs q_i q_j erf(r / 2w) / r``: Coulomb's law at long distances, and finite where Gaussians of width w
    overlap, a range that is left to the network. The self-energy of the Gaussians is not counted.

    For open structures the sum runs over all pairs. For periodic ones it includes all images and is evaluated in
    reciprocal space only (the charges are smooth), by torch-pme: with conducting boundary conditions, and a uniform
    background that neutralises a net charge. For slabs the interaction between periodic images is removed; they need
    some vacuum.

    The charges are learned through the energy, and from a target "charges" if there is one. With the head
    ``NodeScalar("charges", conserve=True)`` their sum is the net charge of the structure.

    Args:
        width: width w in Å. The number of waves, and the time of periodic structures, grow as w⁻³.
        method: method for periodic structures: "ewald" sums waves exactly, in a time quadratic in the number of atoms;
            "pme" uses a mesh, to about eight digits, in a time almost linear in the number of atoms.

    Shapes:
        Returns [N] eV, float64: each atom has half of the energy of its pairs.

    Raises:
        MissingExtraError: a structure is periodic and the extra "electrostatics" is not installed.
        InputError: the method is unknown, or the width not positive.
        CellError: a structure is periodic in only one direction, for which the sum is not implemented.

    Source:
        Ewald, Ann. Phys. 369, 253 (1921); PME: Darden, York & Pedersen, J. Chem. Phys. 98, 10089 (1993);
        torch-pme: Loche et al., J. Chem. Phys. 162, 142501 (2025), arXiv:2412.03281; slabs: Yeh & Berkowitz,
        J. Chem. Phys. 111, 3155 (1999).
    """

    needs: ClassVar[tuple[str, ...]] = ("charges",)

    def __init__(self, width: float = 1.0, method: PeriodicSum = "ewald") -> None:
        super().__init__()
        check_positive(self, width=width)
        check_name("method of periodic charges", method, get_args(PeriodicSum))
        self.width, self.method = float(width), method
        self.strength = conversion("Ha*a0", "eV*Å")

    @classmethod
    def example(cls) -> Self:
        return cls()

    def heads(self) -> list[Head]:
        """Return a head for conserved charges."""
        return [NodeScalar("charges", conserve=True)]

    def forward(self, data: Data, outputs: Mapping[str, Tensor]) -> Tensor:
        """Return half of the energy of its pairs for each atom."""
        charges, ptr = outputs["charges"].double(), graph_pointers(data)
        periodic = _periodic(data, len(ptr) - 1)  # [G, 3]
        energies = torch.zeros_like(charges)
        nodes = (~periodic.any(1))[batch_from_ptr(ptr, len(charges))].nonzero().squeeze(1)
        if len(nodes):
            counts = ptr.diff()[~periodic.any(1)]
            open_ptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
            potential = self._open(data.pos[nodes], charges[nodes], open_ptr)
            energies = energies.index_add(0, nodes, charges[nodes] * potential)
        for graph in periodic.any(1).nonzero().squeeze(1).tolist():
            nodes = torch.arange(int(ptr[graph]), int(ptr[graph + 1]), device=ptr.device)
            cell = data.cell.reshape(-1, 3, 3)[graph]
            potential = self._with_images(data.pos[nodes], charges[nodes], cell, periodic[graph])
            energies = energies.index_add(0, nodes, charges[nodes] * potential)
        return self.strength * energies

    def _open(self, positions: Tensor, charges: Tensor, ptr: Tensor) -> Tensor:
        """Return half of the potential at each atom of open structures, in e/Å, [N]."""
        edges = full_edges(ptr)
        batch = batch_from_ptr(ptr, len(positions))
        lengths = edge_lengths(edge_vectors(positions, edges.sender, edges.receiver, None, None, batch))
        potential = charges.index_select(0, edges.sender) * torch.erf(lengths / (2 * self.width)) / lengths
        return kernels.segment_sum(potential, edges.receiver, len(positions)) / 2

    def _with_images(self, positions: Tensor, charges: Tensor, cell: Tensor, periodic: Tensor) -> Tensor:
        """Return half of the potential at each atom of one structure with all its images, in e/Å, [N]."""
        calculator = _calculator(_torchpme(), self.method, self.width)
        no_pairs = torch.zeros(0, 2, dtype=torch.int64, device=positions.device)  # the sum has no part in real space
        potential: Tensor = calculator.to(positions.device)(
            charges.unsqueeze(1), cell, positions, no_pairs, positions.new_zeros(0), periodic=periodic
        )
        return potential.squeeze(1)


@functools.cache
def _torchpme() -> ModuleType:
    """Import torch-pme without its interface to metatensor, which cannot be imported beside PyG.

    TorchScript cannot compile PyG's ``torch.index_select``, which metatensor's operations call.
    """
    interface = "torchpme.metatensor"
    hidden = "torchpme" not in sys.modules
    if hidden:
        sys.modules[interface] = None  # type: ignore[assignment]  # importing it fails as if it were not installed
    try:
        return import_extra("torchpme", "electrostatics")
    finally:
        if hidden:
            del sys.modules[interface]


def _periodic(data: Data, count: int) -> Tensor:
    """Return the directions in which each structure is periodic, [G, 3]."""
    pbc = getattr(data, "pbc", None)
    if pbc is None:
        return torch.zeros(count, 3, dtype=torch.bool, device=data.pos.device)
    periodic: Tensor = pbc.reshape(-1, 3)
    wires = periodic.sum(1) == 1
    if bool(wires.any()):
        raise CellError(
            f"Graph {int(wires.nonzero()[0, 0])} is periodic in only one direction: electrostatics sums over images in "
            "two or three directions. Set pbc to True in another one, with vacuum in the cell, or to False in all."
        )
    return periodic


def _calculator(library: ModuleType, method: str, width: float) -> Any:
    """Return the calculator of torch-pme, whose width is that of the product of two Gaussians."""
    smearing = math.sqrt(2) * width
    potential = library.CoulombPotential(smearing=smearing)
    if method == "pme":
        return library.PMECalculator(potential, mesh_spacing=smearing / MESH, interpolation_nodes=NODES)
    largest = math.sqrt(-2 * math.log(PRECISION)) / smearing
    # It takes half as many waves along an axis as its wavelength argument suggests.
    return library.EwaldCalculator(potential, lr_wavelength=math.pi / largest)
