"""Calculators of ASE with random weights, of geoeq, MACE and NequIP; each package is imported where it is used."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch

#: Atomic numbers that every potential knows: those of ``md_structures``.
ELEMENTS = (1, 6, 8, 14)

#: Neighbours of an atom, where a network asks for their mean number; it changes no time.
NEIGHBORS = 28.0


@dataclass(frozen=True)
class Potential:
    """A calculator, and what the clock watches of it.

    Attributes:
        calculator: for ASE.
        watched: part of the time -> the functions that are it, each as its owner and its name there. What is none of
            them is overhead.
        parameters: how many there are.
        packages: with their versions.
    """

    calculator: Any
    watched: dict[str, list[tuple[Any, str]]]
    parameters: int
    packages: str


def of_geoeq(arguments: dict[str, Any], cutoff: float, device: str) -> Potential:
    import geoeq.models
    from geoeq.models import FrameAveraging, GraphScalar
    from geoeq.simulate import GeoeqCalculator

    given = dict(arguments)
    cls = getattr(geoeq.models, given.pop("network"))
    preset, frames = given.pop("preset", None), given.pop("frames", None)
    given |= {"cutoff": cutoff, "elements": list(ELEMENTS)}
    heads = [GraphScalar("energy")]
    network = cls(heads, **given) if preset is None else cls.preset(preset, heads, **given)
    calculator = GeoeqCalculator(network if frames is None else FrameAveraging(network, frames=frames), device)
    model, framed = (importlib.import_module(f"geoeq.models.{name}") for name in ("model", "framed"))
    watched: dict[str, list[tuple[Any, str]]] = {
        "neighbors": [(calculator.neighbor_list, "edges")],
        "model": [(calculator.model, "forward")],
        "overhead": [(model, "check_inputs"), (model, "check_edges"), (framed, "check_inputs")],
    }
    return Potential(calculator, watched, _count(calculator.model), _versions("geoeq", "e3nn"))


def of_mace(arguments: dict[str, Any], cutoff: float, device: str) -> Potential:
    """A MACE as ``mace_run_train`` makes it by default, with two layers and correlation order 3."""
    from mace.calculators import MACECalculator  # before e3nn, whose constants it makes readable
    from mace.data import atomic_data
    from mace.modules import ScaleShiftMACE, interaction_classes

    from e3nn import o3  # isort: skip

    network = ScaleShiftMACE(
        r_max=cutoff,
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=3,
        interaction_cls=interaction_classes["RealAgnosticResidualInteractionBlock"],
        interaction_cls_first=interaction_classes["RealAgnosticInteractionBlock"],
        num_interactions=2,
        num_elements=len(ELEMENTS),
        hidden_irreps=o3.Irreps(arguments["hidden_irreps"]),
        MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=torch.zeros(len(ELEMENTS)).numpy(),
        avg_num_neighbors=NEIGHBORS,
        atomic_numbers=list(ELEMENTS),
        correlation=3,
        gate=torch.nn.functional.silu,
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
    )
    calculator = MACECalculator(models=[network], device=device, default_dtype="float32")
    watched: dict[str, list[tuple[Any, str]]] = {
        "neighbors": [(atomic_data, "get_neighborhood")],
        "model": [(calculator.models[0], "forward")],
    }
    return Potential(calculator, watched, _count(calculator.models[0]), _versions("mace-torch", "e3nn"))


def of_nequip(arguments: dict[str, Any], cutoff: float, device: str) -> Potential:
    """A NequIP of its preset sizes' kind: features of one parity, radial networks of one hidden layer of 128."""
    from ase.data import chemical_symbols
    from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper, NeighborListTransform
    from nequip.integrations.ase import NequIPCalculator
    from nequip.model import NequIPGNNModel
    from nequip.utils.global_state import set_global_state

    set_global_state()
    symbols = [chemical_symbols[number] for number in ELEMENTS]
    network = NequIPGNNModel(
        seed=0,
        model_dtype="float32",
        type_names=symbols,
        r_max=cutoff,
        parity=False,
        avg_num_neighbors=NEIGHBORS,
        per_type_energy_scales=1.0,
        **arguments,
    )
    neighbors = NeighborListTransform(r_max=cutoff)
    mapper = ChemicalSpeciesToAtomTypeMapper(symbols)
    calculator = NequIPCalculator(network.eval().requires_grad_(False), device=device, transforms=[mapper, neighbors])
    watched: dict[str, list[tuple[Any, str]]] = {
        "neighbors": [(neighbors, "forward")],
        "model": [(calculator, "call_model")],
    }
    return Potential(calculator, watched, _count(network), _versions("nequip", "e3nn"))


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _versions(*names: str) -> str:
    return ", ".join(f"{name} {version(name)}" for name in names)


FACTORIES: dict[str, Callable[[dict[str, Any], float, str], Potential]] = {
    "geoeq": of_geoeq,
    "mace": of_mace,
    "nequip": of_nequip,
}
