"""Adapters between the files of parity cases and geoeq's networks: how inputs are fed, and outputs are compared."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from e3nn import o3
from torch import Tensor
from torch_geometric.data import Batch, Data

from geoeq.errors import DataError
from geoeq.geometry.frames import inputs_that_turn, pca_frames
from geoeq.graph import build_graph
from geoeq.models import EGNN, ESCN, PONITA, Equiformer, EquiformerV2, FAENet, Model, NequIP, SE3Transformer
from geoeq.parity.recovery import contradicts, recover_orientations, recover_positions

__all__ = [
    "NETWORKS",
    "ColumnNetwork",
    "DegreeNetwork",
    "EnergyNetwork",
    "Network",
    "OrientationNetwork",
    "PotentialNetwork",
    "PrincipalFrames",
]


@dataclass(frozen=True)
class Network:
    """Adapter for the cases of one published network.

    Attributes:
        model: the class with ``from_reference``.
        inputs: the case's name of an input -> the attribute of Data.
        outputs: the case's name of an output -> our name.
        squares: the column of ``edge_attr`` with the squared distances of the input, if there is one.
    """

    model: type[Model]
    inputs: dict[str, str]
    outputs: dict[str, str]
    squares: int | None = None

    def run(
        self, parts: dict[str, dict[str, Tensor]], hyperparameters: dict[str, object]
    ) -> tuple[dict[str, Tensor], str]:
        """Return our outputs of a case under its names, and a remark on its input (empty if there is none)."""
        model = self.model.from_reference(parts["param"], **hyperparameters).eval()
        data = self.data(parts["input"])
        remark = self.restore_input(model, data, parts)
        data.pos.requires_grad_()
        outputs = self.outputs_of(model, data)
        if "grad_pos" in parts["output"]:
            (outputs["grad_pos"],) = torch.autograd.grad(self.probe(outputs), data.pos)
        return outputs, remark

    def probe(self, outputs: dict[str, Tensor]) -> Tensor:
        """Return the number whose derivative by the positions a case stores as ``grad_pos``."""
        return _probe(outputs)

    def data(self, tensors: dict[str, Tensor]) -> Data:
        """Return the inputs of a case as Data."""
        return Data(**{ours: tensors[theirs] for theirs, ours in self.inputs.items() if theirs in tensors})

    def outputs_of(self, model: Model, data: Data) -> dict[str, Tensor]:
        """Return our outputs under the case's names."""
        outputs = model(data)
        return {theirs: outputs[ours] for theirs, ours in self.outputs.items()}

    def restore_input(self, model: Model, data: Data, parts: dict[str, dict[str, Tensor]]) -> str:
        """Recover inputs that the file lacks (see ``geoeq.parity.recovery``), and return a remark.

        For this class these are input positions that the published code overwrote.
        """
        if self.squares is None or data.edge_attr is None or data.edge_attr.shape[-1] <= self.squares:
            return ""
        squares = data.edge_attr[:, self.squares]
        if not contradicts(data.pos, data.edge_index, squares):
            return ""
        model.requires_grad_(False)
        data.pos = recover_positions(lambda graph: model(graph)["positions"], data, squares, parts["output"]["pos"])
        return "input.pos is not the input (its distances are not those of edge_attr); recovered from edge_attr"


class DegreeNetwork(Network):
    """Adapter for features [N, channels, 2 l + 1] per degree: inputs x, x1, ... and outputs degree0, degree1, ..."""

    def data(self, tensors: dict[str, Tensor]) -> Data:
        flat = {theirs: value.flatten(1) if value.dim() == 3 else value for theirs, value in tensors.items()}
        data = super().data(flat)
        names = sorted(name for name in flat if name.rstrip("0123456789") in ("x", "degree"))
        data.x = torch.cat([flat[name] for name in names], dim=-1)
        return data

    def outputs_of(self, model: Model, data: Data) -> dict[str, Tensor]:
        irreps: o3.Irreps = model.irreps_out
        x = model.encode(data, build_graph(data, model.cutoff, model.lmax))
        blocks = zip(irreps, irreps.slices(), strict=True)
        return {f"degree{ir.l}": x[:, block].reshape(-1, mul, ir.dim) for (mul, ir), block in blocks}


class ColumnNetwork(Network):
    """Adapter for an energy [G, 1]; forces that the network does not predict are derivatives of the energy."""

    def outputs_of(self, model: Model, data: Data) -> dict[str, Tensor]:
        outputs = model(data)
        if "forces" not in outputs:
            total = outputs["energy"].sum()
            outputs["forces"] = -torch.autograd.grad(total, data.pos, retain_graph=True)[0]
        return {"energy": outputs["energy"].unsqueeze(-1), "forces": outputs["forces"]}


class EnergyNetwork(Network):
    """Adapter for outputs [G, 1] of a network that takes the edges of the case, whatever its cutoff."""

    def outputs_of(self, model: Model, data: Data) -> dict[str, Tensor]:
        if "edge_index" in data and model.cutoff is not None:
            order = data.edge_index[1].argsort(stable=True)
            data.edge_index = data.edge_index[:, order]
            data.edge_cutoff = data.pos.new_full((int(data.batch.max()) + 1,), model.cutoff)
        return {name: value.unsqueeze(-1) for name, value in super().outputs_of(model, data).items()}


class PotentialNetwork(EnergyNetwork):
    """Adapter for the energy [G, 1] of a potential, its atomic energies [N, 1], and forces from its derivative."""

    def outputs_of(self, model: Model, data: Data) -> dict[str, Tensor]:
        outputs = super().outputs_of(model, data)
        (gradient,) = torch.autograd.grad(outputs["energy"].sum(), data.pos, retain_graph=True)
        return outputs | {"forces": -gradient}

    def probe(self, outputs: dict[str, Tensor]) -> Tensor:
        return outputs["energy"].sum()


class OrientationNetwork(Network):
    """Adapter for functions on positions and orientations, before any head: outputs scalar and vector."""

    def outputs_of(self, model: Model, data: Data) -> dict[str, Tensor]:
        if not isinstance(model, PONITA):
            raise DataError(f"{type(model).__name__} has no orientations.")
        x = model.encode(data, build_graph(data, model.cutoff))
        scalars, vectors = x[:, : model.scalars], x[:, model.scalars :]
        return {"scalar": scalars} | ({"vector": vectors.reshape(len(x), -1, 3)} if model.vectors else {})

    def restore_input(self, model: Model, data: Data, parts: dict[str, dict[str, Tensor]]) -> str:
        has_grid = any(key.endswith("ori_grid") for key in parts["param"])
        if not isinstance(model, PONITA) or not model.num_orientations or has_grid:
            return ""
        model.requires_grad_(False)

        def outputs(points: Tensor) -> dict[str, Tensor]:
            model.points = points
            return self.outputs_of(model, data)

        model.points = recover_orientations(outputs, model.points, parts["output"])
        return "the grid of orientations is not in the file; recovered from the outputs, which are more numbers"


class PrincipalFrames:
    """Comparison of all frames of principal axes: ``input.posk`` gives ``output.rotationsk`` and ``output.framesk``.

    Such a case has no network and no parameters.
    """

    def run(
        self, parts: dict[str, dict[str, Tensor]], hyperparameters: dict[str, object]
    ) -> tuple[dict[str, Tensor], str]:
        """Return our frames of E(3), each at the index of the closest published one, as their order means nothing."""
        numbers = sorted(int(name.removeprefix("pos")) for name in parts["input"])
        positions = [parts["input"][f"pos{number}"] for number in numbers]
        batch = Batch.from_data_list([Data(pos=pos) for pos in positions])
        frames = pca_frames(*inputs_that_turn(batch, "E(3)"), group="E(3)")
        outputs = {}
        for graph, (number, pos) in enumerate(zip(numbers, positions, strict=True)):
            rotations = frames.rotations[frames.graph == graph]
            distances = torch.cdist(parts["output"][f"rotations{number}"].flatten(1), rotations.flatten(1))
            closest = distances.argmin(1)
            if len(closest.unique()) < len(rotations):  # two published frames match one of ours: the sets differ
                closest = closest[:0]
            outputs[f"rotations{number}"] = rotations[closest]
            outputs[f"frames{number}"] = (pos - frames.centroids[graph]) @ rotations[closest]
        return outputs, ""


def _probe(outputs: dict[str, Tensor]) -> Tensor:
    """Return a sum of all outputs."""
    total = next(iter(outputs.values())).new_zeros(())
    for name, value in outputs.items():
        weights = torch.linspace(0, 1, value.numel(), dtype=value.dtype) if name == "pos" else torch.ones(value.numel())
        total = total + (value.flatten() * weights).sum()
    return total


_EGNN_INPUTS = {"h": "x", "pos": "pos", "vel": "vel", "edge_index": "edge_index", "edge_attr": "edge_attr"}
_ATOM_INPUTS = {"z": "z", "pos": "pos", "edge_index": "edge_index", "batch": "batch"}
_POTENTIAL = {"energy": "energy", "forces": "forces"}
_ATOMIC = {"energy": "energy", "atomic_energy": "atomic_energies"}

#: name of the folder of a case -> the adapter for its network, or for something else that is compared.
NETWORKS: dict[str, Network | PrincipalFrames] = {
    "egnn": Network(EGNN, _EGNN_INPUTS | {"batch": "batch"}, {"h": "features", "pos": "positions"}),
    "egnn_velocity": Network(EGNN, _EGNN_INPUTS, {"pos": "positions"}, squares=1),
    "equiformer": EnergyNetwork(Equiformer, _ATOM_INPUTS, {"y": "energy"}),
    "equiformer_v2": Network(EquiformerV2, _ATOM_INPUTS, _POTENTIAL),
    "escn": Network(ESCN, _ATOM_INPUTS, _POTENTIAL),
    "faenet": ColumnNetwork(FAENet, _ATOM_INPUTS | {"tags": "tags"}, _POTENTIAL),
    "frames": PrincipalFrames(),
    "nequip": PotentialNetwork(NequIP, _ATOM_INPUTS, _ATOMIC),
    "ponita": OrientationNetwork(PONITA, {"x": "x", "pos": "pos", "edge_index": "edge_index", "batch": "batch"}, {}),
    "sevennet": PotentialNetwork(NequIP, _ATOM_INPUTS, _ATOMIC),
    "se3_transformer": DegreeNetwork(SE3Transformer, _EGNN_INPUTS | {"batch": "batch"}, {}),
}
