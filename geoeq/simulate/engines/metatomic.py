"""A potential as a model of metatomic: one file for the engines that read it (LAMMPS, i-PI, GROMACS, ASE ...)."""

# TorchScript reads annotations as they stand: no `from __future__ import annotations`, and the names of typing.
from pathlib import Path
from typing import Dict, List, Optional, Union  # noqa: UP035

import torch
from torch import Tensor, fx
from torch._ops import OpOverload

from geoeq.errors import InputError
from geoeq.files import atomic_write
from geoeq.models import Model
from geoeq.resources import import_extra
from geoeq.simulate.engines.atomic_energies import trace_atomic_energies
from geoeq.simulate.engines.export_check import structures_to_compare
from geoeq.simulate.engines.exported import TOLERANCES, worst_error
from geoeq.simulate.engines.graph_inputs import GraphInputs, graph_inputs
from geoeq.simulate.engines.interaction_range import interaction_range
from geoeq.simulate.engines.tracing import example_inputs
from geoeq.simulate.md.thermo import UNCERTAIN
from geoeq.simulate.potential import as_potential, energies_within

# PyG puts a function of Python in the place of torch.index_select, and TorchScript, in which metatomic is, refuses it.
_replaced, torch.index_select = torch.index_select, torch._VF.index_select
try:
    import_extra("metatomic.torch", "metatomic")
finally:
    torch.index_select = _replaced
from metatensor.torch import Labels, TensorBlock, TensorMap  # noqa: E402
from metatomic.torch import (  # noqa: E402
    AtomisticModel,
    ModelCapabilities,
    ModelEvaluationOptions,
    ModelMetadata,
    ModelOutput,
    NeighborListOptions,
    System,
    load_atomistic_model,
)

__all__ = ["export_metatomic", "metatomic_systems"]


class MetatomicEnergy(torch.nn.Module):
    """What engines call: the energy of systems or of their atoms, of which they take derivatives themselves.

    Where the model knows it, the uncertainty of the energy too, of a system or of each atom: a norm of the sum of the
    spreads of its atoms, or of each.

    Args:
        graph: of ``trace_atomic_energies``, with spreads.
        cutoff: of the neighbour list, in Å.
    """

    def __init__(self, graph: fx.GraphModule, cutoff: float) -> None:
        super().__init__()
        self.graph = graph
        self.options = NeighborListOptions(cutoff=cutoff, full_list=True, strict=True)

    def requested_neighbor_lists(self) -> List[NeighborListOptions]:  # noqa: UP006
        """All pairs within the cutoff, in both directions."""
        return [self.options]

    def forward(
        self,
        systems: List[System],  # noqa: UP006
        outputs: Dict[str, ModelOutput],  # noqa: UP006
        selected_atoms: Optional[Labels],  # noqa: UP045
    ) -> Dict[str, TensorMap]:  # noqa: UP006
        """Energies, where they are asked for."""
        results: Dict[str, TensorMap] = {}  # noqa: UP006
        if len(outputs) == 0 or len(systems) == 0:
            return results
        positions: List[Tensor] = []  # noqa: UP006
        numbers: List[Tensor] = []  # noqa: UP006
        owners: List[Tensor] = []  # noqa: UP006
        places: List[Tensor] = []  # noqa: UP006
        cells: List[Tensor] = []  # noqa: UP006
        edges: List[Tensor] = []  # noqa: UP006
        shifts: List[Tensor] = []  # noqa: UP006
        first = 0
        begins: List[int] = []  # noqa: UP006
        for index, system in enumerate(systems):
            count = system.positions.shape[0]
            place = torch.arange(count, device=system.positions.device)
            pairs = system.get_neighbor_list(self.options).samples.values.to(torch.int64)  # [E, 5]
            pairs = pairs.index_select(0, torch.argsort(pairs[:, 0], stable=True))
            positions.append(system.positions)
            numbers.append(system.types)
            owners.append(torch.full_like(place, index))
            places.append(place)
            cells.append(system.cell)
            edges.append(torch.stack([pairs[:, 1], pairs[:, 0]]) + first)  # senders over receivers
            shifts.append(pairs[:, 2:])
            begins.append(first)
            first += count
        owner, place = torch.cat(owners), torch.cat(places)
        energies, spreads = self.graph(
            torch.cat(positions).to(torch.float64),
            torch.cat(numbers).to(torch.int64),
            owner,
            torch.stack(cells).to(torch.float64),
            torch.cat(edges, dim=1),
            torch.cat(shifts).to(torch.float64),
        )  # [N], [N, W]
        if selected_atoms is not None:
            chosen = selected_atoms.values.to(torch.int64)  # [n, 2] system and atom
            start = torch.tensor(begins, dtype=torch.int64, device=owner.device)
            rows = start.index_select(0, chosen[:, 0]) + chosen[:, 1]
            energies, spreads = energies.index_select(0, rows), spreads.index_select(0, rows)
            owner, place = chosen[:, 0], chosen[:, 1]
        zero = torch.zeros(1, 1, dtype=torch.int32, device=owner.device)
        for name, asked in outputs.items():
            values = energies.unsqueeze(1) if name == "energy" else spreads  # [N, 1 or W]
            if asked.sample_kind == "atom":
                names = ["system", "atom"]
                samples = torch.stack([owner, place], dim=1)
            else:
                names = ["system"]
                samples = torch.arange(len(systems), device=owner.device).unsqueeze(1)
                total = torch.zeros(len(systems), values.shape[1], dtype=values.dtype, device=values.device)
                values = total.index_add(0, owner, values)
            if name != "energy":
                values = values.square().sum(1, keepdim=True).sqrt()
            block = TensorBlock(
                values=values.to(systems[0].positions.dtype),
                samples=Labels(names, samples.to(torch.int32)),
                components=torch.jit.annotate(List[Labels], []),  # noqa: UP006
                properties=Labels(["energy"], zero),
            )
            results[name] = TensorMap(Labels(["_"], zero), [block])
        return results


def export_metatomic(
    model: Union[str, Path, Model],  # noqa: UP007
    path: Union[str, Path],  # noqa: UP007
    *,
    device: str = "cpu",
    dtype: Optional[torch.dtype] = None,  # noqa: UP045
    description: str = "",
    trust: bool = False,
) -> float:
    """Write the energy of a potential as a file of metatomic, with TorchScript inside.

    The network is traced for structures of any size, and the graph, which has the operators of PyTorch alone, is
    turned into TorchScript; engines differentiate it for forces and stress. It gives energies of atoms, so that an
    engine may cut a structure into parts, and of what knows its uncertainty (``LastLayer``, ``Ensemble``) the
    "energy_uncertainty" as well, of systems or of atoms. How far the energy of an atom reaches is measured with the
    trained weights.

    Before the file is written it is loaded and compared with the model, for many sizes, open and periodic.

    Args:
        model: a run of ``geoeq train``, a checkpoint, or a Model, with an energy.
        path: of the file, with the suffix .pt.
        device: "cpu" or "cuda", on which it then runs.
        dtype: of the model and of what engines give and get: in float32 total energies have seven digits.
        description: for the metadata.
        trust: import and run classes that are not part of geoeq, where the checkpoint names any.

    Returns:
        The largest difference to the model, as ``geoeq.simulate.engines.exported.worst_error`` counts it.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        InputError: the suffix is another; the model has no cutoff or no energy, its energy is no sum over atoms, its
            forces are no derivatives; no graph of it holds for all sizes; or what it gives differs from the model.
        MissingExtraError: metatomic is not installed.
    """
    path = Path(path)
    if path.suffix != ".pt":
        raise InputError(f"'{path}': a model of metatomic has the suffix .pt.")
    potential = as_potential(model, device, dtype, trust=trust)
    inner, cutoff = energies_within(potential), potential.cutoff
    if inner is None:
        raise InputError(f"{potential.title}: metatomic takes an energy, and forces that are its derivatives.")
    if cutoff is None:
        raise InputError(f"{potential.title} has no cutoff, and engines find the neighbours within one.")
    graph = trace_atomic_energies(inner, example_inputs(potential), spreads=True)
    _check_sums(potential, graph)
    reach = interaction_range(lambda *inputs: graph(*inputs)[0], potential)
    for node in graph.graph.nodes:
        if isinstance(node.target, OpOverload):  # which TorchScript chooses by itself
            node.target = node.target.overloadpacket
    graph.recompile()
    name = str(next(potential.parameters()).dtype).removeprefix("torch.")
    given = {"energy": ModelOutput(unit="eV", sample_kind="atom", description="potential energy")}
    if UNCERTAIN in potential.fields:
        told = "estimated standard deviation of the error of the energy"
        given[UNCERTAIN] = ModelOutput(unit="eV", sample_kind="atom", description=told)
    capabilities = ModelCapabilities(
        outputs=given,
        atomic_types=list(potential.elements or range(1, 119)),
        interaction_range=reach,
        length_unit="Angstrom",
        supported_devices=[device],
        dtype=name,
    )
    metadata = ModelMetadata(name=potential.title, description=description)
    wrapped = AtomisticModel(MetatomicEnergy(graph, cutoff).eval(), metadata, capabilities)
    with atomic_write(path) as temporary:
        wrapped.save(str(temporary))
        return _verify(load_atomistic_model(str(temporary)).to(device), potential, TOLERANCES[name])


def _check_sums(potential: Model, graph: fx.GraphModule) -> None:
    """Whether the energies of atoms are those of structures, taken apart."""
    data = next(structures_to_compare(potential, ()))
    inputs = graph_inputs(data, potential.cutoff)
    with torch.no_grad():
        expected = potential(data)["energy"]
        found = torch.zeros_like(expected).index_add(0, inputs.batch, graph(*inputs)[0].to(expected.dtype))
    limit = TOLERANCES[str(next(potential.parameters()).dtype).removeprefix("torch.")]
    if not bool((found - expected).abs().max() <= limit * expected.abs().max().clamp(min=1e-3)):
        raise InputError(f"The energy of {potential.title} is no sum over atoms, such as metatomic asks for.")


def _verify(loaded: AtomisticModel, potential: Model, limit: float) -> float:
    worst = 0.0
    dtype = next(potential.parameters()).dtype
    names = ["energy", *(name for name in (UNCERTAIN,) if name in potential.fields)]
    options = ModelEvaluationOptions("Angstrom", outputs={name: ModelOutput(unit="eV") for name in names})
    for data in structures_to_compare(potential, ()):
        inputs = graph_inputs(data, potential.cutoff)
        with torch.no_grad():
            expected = potential(data)
        positions = inputs.positions.to(dtype).requires_grad_()
        systems = metatomic_systems(inputs._replace(positions=positions), loaded.requested_neighbor_lists()[0], dtype)
        given = loaded(systems, options, check_consistency=True)
        found = [given[name].block().values.squeeze(1) for name in names]
        gradient = torch.autograd.grad(found[0].sum(), positions, materialize_grads=True, allow_unused=True)[0]
        right = [*(expected[name] for name in names), expected["forces"]]
        found = [*(value.detach() for value in found), -gradient]
        error = worst_error(lambda *_: found, inputs, right)  # noqa: B023
        if not error <= limit:
            raise InputError(
                f"{potential.title} cannot be exported: for structures of {inputs.batch.bincount().tolist()} atoms "
                f"what metatomic gives differs from the model by {error:.1e}, and {limit:.0e} is allowed."
            )
        worst = max(worst, error)
    return worst


def metatomic_systems(inputs: GraphInputs, options: NeighborListOptions, dtype: torch.dtype) -> List[System]:  # noqa: UP006
    """Structures as engines give them, with their neighbour lists."""
    systems, shifts = [], inputs.shifts
    owner = inputs.batch.index_select(0, inputs.edges[1])
    for index, cell in enumerate(inputs.cells):
        mine, atoms = (owner == index).nonzero().squeeze(1), (inputs.batch == index).nonzero().squeeze(1)
        positions = inputs.positions.index_select(0, atoms)
        pbc = cell.abs().sum(1) > 0
        system = System(inputs.numbers[atoms].to(torch.int32), positions, cell.to(dtype), pbc)
        sender, receiver = inputs.edges[:, mine] - atoms[0]
        samples = torch.cat([torch.stack([receiver, sender], dim=1), shifts[mine].long()], dim=1).to(torch.int32)
        vectors = positions[sender] - positions[receiver] + shifts[mine].to(dtype) @ cell.to(dtype)
        names = ["first_atom", "second_atom", "cell_shift_a", "cell_shift_b", "cell_shift_c"]
        block = TensorBlock(
            values=vectors.unsqueeze(2),
            samples=Labels(names, samples),
            components=[Labels.range("xyz", 3).to(cell.device)],
            properties=Labels.range("distance", 1).to(cell.device),
        )
        system.add_neighbor_list(options, block)
        systems.append(system)
    return systems
