"""Export a potential as a metatomic model: one file for LAMMPS, i-PI, GROMACS, ASE and others."""

# TorchScript needs real annotations: no `from __future__ import annotations`, and the names of `typing`.
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Tuple, Union  # noqa: UP035

import torch
from torch import Tensor, fx
from torch._ops import OpOverload

from geoeq.errors import InputError
from geoeq.files import atomic_write
from geoeq.models import Model
from geoeq.resources import import_extra
from geoeq.simulate.engines.atomic_energies import interaction_range, trace_atomic_energies
from geoeq.simulate.engines.graph_inputs import GraphInputs, graph_inputs
from geoeq.simulate.engines.tracing import example_inputs
from geoeq.simulate.engines.verification import TOLERANCES, check_errors, structures_to_compare, worst_error
from geoeq.simulate.md.thermo import ENERGY_UNCERTAINTY
from geoeq.simulate.potential import as_potential, energies_within
from geoeq.trust import Trust

# PyG replaces torch.index_select by a Python function, which TorchScript, the language of metatomic, refuses.
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
    """Module that engines call: the energy of systems or of their atoms, which the engines differentiate themselves.

    If the model has an uncertainty of the energy, it is returned too, per system or per atom: the norm of the summed
    spreads of its atoms, or of the spread of each.

    Args:
        graph: graph returned by ``trace_atomic_energies`` with spreads.
        cutoff: cutoff radius of the neighbour list, in Å.
    """

    def __init__(self, graph: fx.GraphModule, cutoff: float) -> None:
        super().__init__()
        self.graph = graph
        self.options = NeighborListOptions(cutoff=cutoff, full_list=True, strict=True)

    def requested_neighbor_lists(self) -> List[NeighborListOptions]:  # noqa: UP006
        """Request all pairs within the cutoff, in both directions."""
        return [self.options]

    def forward(
        self,
        systems: List[System],  # noqa: UP006
        outputs: Dict[str, ModelOutput],  # noqa: UP006
        selected_atoms: Optional[Labels],  # noqa: UP045
    ) -> Dict[str, TensorMap]:  # noqa: UP006
        """Compute the requested outputs."""
        results: Dict[str, TensorMap] = {}  # noqa: UP006
        if len(outputs) == 0 or len(systems) == 0:
            return results
        positions: List[Tensor] = []  # noqa: UP006
        numbers: List[Tensor] = []  # noqa: UP006
        systems_of_atoms: List[Tensor] = []  # noqa: UP006
        indices: List[Tensor] = []  # noqa: UP006
        cells: List[Tensor] = []  # noqa: UP006
        edges: List[Tensor] = []  # noqa: UP006
        shifts: List[Tensor] = []  # noqa: UP006
        first = 0
        starts: List[int] = []  # noqa: UP006
        for index, system in enumerate(systems):
            count = system.positions.shape[0]
            atoms = torch.arange(count, device=system.positions.device)
            pairs = system.get_neighbor_list(self.options).samples.values.to(torch.int64)  # [E, 5]
            pairs = pairs.index_select(0, torch.argsort(pairs[:, 0], stable=True))
            positions.append(system.positions)
            numbers.append(system.types)
            systems_of_atoms.append(torch.full_like(atoms, index))
            indices.append(atoms)
            cells.append(system.cell)
            edges.append(torch.stack([pairs[:, 1], pairs[:, 0]]) + first)  # senders over receivers
            shifts.append(pairs[:, 2:])
            starts.append(first)
            first += count
        owner, atom = torch.cat(systems_of_atoms), torch.cat(indices)
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
            start = torch.tensor(starts, dtype=torch.int64, device=owner.device)
            rows = start.index_select(0, chosen[:, 0]) + chosen[:, 1]
            energies, spreads = energies.index_select(0, rows), spreads.index_select(0, rows)
            owner, atom = chosen[:, 0], chosen[:, 1]
        zero = torch.zeros(1, 1, dtype=torch.int32, device=owner.device)
        for name, requested in outputs.items():
            values = energies.unsqueeze(1) if name == "energy" else spreads  # [N, 1 or W]
            if requested.sample_kind == "atom":
                names = ["system", "atom"]
                samples = torch.stack([owner, atom], dim=1)
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


@torch.inference_mode(False)  # tensors of inference mode could not be used in derivatives
def export_metatomic(
    model: Union[str, Path, Model],  # noqa: UP007
    path: Union[str, Path],  # noqa: UP007
    *,
    device: str = "cpu",
    dtype: Optional[torch.dtype] = None,  # noqa: UP045
    description: str = "",
    trust: Trust = False,
) -> float:
    """Write the energy of a potential as a metatomic file, with TorchScript inside.

    The network is traced for structures of any size into a graph of PyTorch operators, which is converted to
    TorchScript; engines differentiate it for forces and stress. It returns energies of atoms, so that an engine may
    distribute a structure, and, for models with an uncertainty (``LastLayer``, ``Ensemble``), the
    "energy_uncertainty" of systems or atoms. The interaction range is measured with the trained weights.

    Before the file is written, it is loaded and compared with the model for many sizes, open and periodic.

    Args:
        model: folder of a ``geoeq train`` run, a checkpoint, name of a fetched published potential, or a Model;
            with an energy.
        path: file to write, with the suffix .pt.
        device: device on which the potential will run, "cpu" or "cuda".
        dtype: dtype of the model and of the engines' inputs and outputs; in float32 total energies have seven digits.
        description: description for the metadata.
        trust: modules outside geoeq whose classes the checkpoint may name, as for ``load_checkpoint``.

    Returns:
        The largest difference from the model, as ``geoeq.simulate.engines.verification.worst_error`` measures it.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        InputError: the path has another suffix; the model has no cutoff or no energy, its energy is not a sum over
            atoms, or its forces are not derivatives of it; no graph of it is valid for all sizes; or its outputs differ
            from the model.
        MissingExtraError: metatomic is not installed.
    """
    path = Path(path)
    if path.suffix != ".pt":
        raise InputError(f"'{path}': a metatomic model must have the suffix .pt.")
    potential = as_potential(model, device, dtype, trust=trust)
    inner, cutoff = energies_within(potential), potential.cutoff
    if inner is None:
        raise InputError(f"{potential.title}: metatomic needs an energy, and forces that are its derivatives.")
    if cutoff is None:
        raise InputError(f"{potential.title} has no cutoff; engines find neighbours within a cutoff.")
    graph = trace_atomic_energies(inner, example_inputs(potential), spreads=True)
    _check_sums(potential, graph)
    reach = interaction_range(lambda *inputs: graph(*inputs)[0], potential)
    for node in graph.graph.nodes:
        if isinstance(node.target, OpOverload):  # TorchScript chooses the overload itself
            node.target = node.target.overloadpacket
    graph.recompile()
    name = str(next(potential.parameters()).dtype).removeprefix("torch.")
    outputs = {"energy": ModelOutput(unit="eV", sample_kind="atom", description="potential energy")}
    if ENERGY_UNCERTAINTY in potential.fields:
        meaning = "estimated standard deviation of the error of the energy"
        outputs[ENERGY_UNCERTAINTY] = ModelOutput(unit="eV", sample_kind="atom", description=meaning)
    capabilities = ModelCapabilities(
        outputs=outputs,
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
        loaded = load_atomistic_model(str(temporary)).to(device)
        return check_errors(potential, "metatomic model", _errors(loaded, potential))


def _check_sums(potential: Model, graph: fx.GraphModule) -> None:
    """Raise unless the energies of atoms add up to those of structures."""
    data = next(structures_to_compare(potential))
    inputs = graph_inputs(data, potential.cutoff)
    with torch.no_grad():
        expected = potential(data)["energy"]
        total = torch.zeros_like(expected).index_add(0, inputs.batch, graph(*inputs)[0].to(expected.dtype))
    limit = TOLERANCES[str(next(potential.parameters()).dtype).removeprefix("torch.")]
    if not bool((total - expected).abs().max() <= limit * expected.abs().max().clamp(min=1e-3)):
        raise InputError(f"The energy of {potential.title} is not a sum over atoms, which metatomic needs.")


def _errors(loaded: AtomisticModel, potential: Model) -> Iterator[Tuple[GraphInputs, float]]:  # noqa: UP006
    dtype = next(potential.parameters()).dtype
    names = ["energy", *(name for name in (ENERGY_UNCERTAINTY,) if name in potential.fields)]
    options = ModelEvaluationOptions("Angstrom", outputs={name: ModelOutput(unit="eV") for name in names})
    for data in structures_to_compare(potential):
        inputs = graph_inputs(data, potential.cutoff)
        with torch.no_grad():
            expected = potential(data)
        positions = inputs.positions.to(dtype).requires_grad_()
        systems = metatomic_systems(inputs._replace(positions=positions), loaded.requested_neighbor_lists()[0], dtype)
        results = loaded(systems, options, check_consistency=True)
        values = [results[name].block().values.squeeze(1) for name in names]
        gradient = torch.autograd.grad(values[0].sum(), positions, materialize_grads=True, allow_unused=True)[0]
        values = [*(value.detach() for value in values), -gradient]
        right = [*(expected[name] for name in names), expected["forces"]]
        yield inputs, worst_error(lambda *_: values, inputs, right)  # noqa: B023


def metatomic_systems(inputs: GraphInputs, options: NeighborListOptions, dtype: torch.dtype) -> List[System]:  # noqa: UP006
    """Return structures as engines pass them, with their neighbour lists."""
    systems, shifts = [], inputs.shifts
    owner = inputs.batch.index_select(0, inputs.edges[1])
    for index, cell in enumerate(inputs.cells):
        edges, atoms = (owner == index).nonzero().squeeze(1), (inputs.batch == index).nonzero().squeeze(1)
        positions = inputs.positions.index_select(0, atoms)
        pbc = cell.abs().sum(1) > 0
        system = System(inputs.numbers[atoms].to(torch.int32), positions, cell.to(dtype), pbc)
        sender, receiver = inputs.edges[:, edges] - atoms[0]
        samples = torch.cat([torch.stack([receiver, sender], dim=1), shifts[edges].long()], dim=1).to(torch.int32)
        vectors = positions[sender] - positions[receiver] + shifts[edges].to(dtype) @ cell.to(dtype)
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
