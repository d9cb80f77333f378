"""Simulations with trained models: an ASE calculator, molecular dynamics, and export to other engines.

``geoeq.simulate.engines.lammps``, ``.torchsim`` and ``.metatomic`` need optional packages; import them by name.
"""

from geoeq.simulate.calculator import GeoeqCalculator
from geoeq.simulate.engines.export import Export, export_potential
from geoeq.simulate.engines.exported import ExportedPotential, load_potential
from geoeq.simulate.fetch_potential import convert_potential, fetch_potential
from geoeq.simulate.md.radial_distribution import RadialDistribution, radial_distribution
from geoeq.simulate.md.settings import MDSettings
from geoeq.simulate.md.simulation import Outcome, Simulation, StopRule
from geoeq.simulate.md.summary import write_summary
from geoeq.simulate.neighbor_list import NeighborList
from geoeq.simulate.published_potentials import load_sevennet

__all__ = [
    "Export",
    "ExportedPotential",
    "GeoeqCalculator",
    "MDSettings",
    "NeighborList",
    "Outcome",
    "RadialDistribution",
    "Simulation",
    "StopRule",
    "convert_potential",
    "export_potential",
    "fetch_potential",
    "load_potential",
    "load_sevennet",
    "radial_distribution",
    "write_summary",
]
