"""Are these the numbers of the authors' implementation? The body of ``geoeq parity``.

A case is a safetensors file (``param.*``, ``input.*``, ``output.*``) with a JSON file beside it that has the
authors' hyperparameters. An output may differ by the tolerance of its dtype, or by twice the ``frame_spread`` of the
JSON file: by how much a few runs of the published code, which turns edge frames at random, differ among themselves.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from e3nn import o3
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch_geometric.data import Data

from geoeq.errors import DataError, unknown_name
from geoeq.graph import build_graph
from geoeq.models import EGNN, ESCN, PONITA, Equiformer, EquiformerV2, FAENet, Model, SE3Transformer
from geoeq.parity.frame_cases import PrincipalFrames
from geoeq.parity.recovery import contradicts, recover_orientations, recover_positions

__all__ = [
    "NETWORKS",
    "CaseResult",
    "ColumnNetwork",
    "DegreeNetwork",
    "EnergyNetwork",
    "Network",
    "OrientationNetwork",
    "check_case",
    "run",
]

_TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5}


@dataclass(frozen=True)
class Network:
    """How the cases of one published network are fed to ours.

    Attributes:
        model: the class with ``from_reference``.
        inputs: the case's name of an input -> the attribute of Data.
        outputs: the case's name of an output -> our name.
        squares: the column of ``edge_attr`` that holds the squared distances of the input, where it is known to.
    """

    model: type[Model]
    inputs: dict[str, str]
    outputs: dict[str, str]
    squares: int | None = None

    def run(
        self, parts: dict[str, dict[str, Tensor]], hyperparameters: dict[str, object]
    ) -> tuple[dict[str, Tensor], str]:
        """Our outputs of a case under its names, and what is to be said about its input."""
        model = self.model.from_reference(parts["param"], **hyperparameters).eval()
        data = self.data(parts["input"])
        remark = self.mend(model, data, parts)
        data.pos.requires_grad_()
        found = self.found(model, data)
        if "grad_pos" in parts["output"]:
            (found["grad_pos"],) = torch.autograd.grad(_probe(found), data.pos)
        return found, remark

    def data(self, tensors: dict[str, Tensor]) -> Data:
        return Data(**{ours: tensors[theirs] for theirs, ours in self.inputs.items() if theirs in tensors})

    def found(self, model: Model, data: Data) -> dict[str, Tensor]:
        """Our outputs under the case's names."""
        outputs = model(data)
        return {theirs: outputs[ours] for theirs, ours in self.outputs.items()}

    def mend(self, model: Model, data: Data, parts: dict[str, dict[str, Tensor]]) -> str:
        """Recover what the file should have and has not (see ``parity_recovery``); a remark on it.

        Here input positions that the published code overwrote.
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
    """A network of features [N, channels, 2 l + 1] a degree: inputs x, x1 .. and outputs degree0, degree1 .."""

    def data(self, tensors: dict[str, Tensor]) -> Data:
        flat = {theirs: value.flatten(1) if value.dim() == 3 else value for theirs, value in tensors.items()}
        data = super().data(flat)
        names = sorted(name for name in flat if name.rstrip("0123456789") in ("x", "degree"))
        data.x = torch.cat([flat[name] for name in names], dim=-1)
        return data

    def found(self, model: Model, data: Data) -> dict[str, Tensor]:
        irreps: o3.Irreps = model.irreps_out
        x = model.encode(data, build_graph(data, model.cutoff, model.lmax))
        parts = zip(irreps, irreps.slices(), strict=True)
        return {f"degree{ir.l}": x[:, place].reshape(-1, mul, ir.dim) for (mul, ir), place in parts}


class ColumnNetwork(Network):
    """A network of one column a graph for its energy; forces that it does not predict are derivatives of that."""

    def found(self, model: Model, data: Data) -> dict[str, Tensor]:
        outputs = model(data)
        if "forces" not in outputs:
            total = outputs["energy"].sum()
            outputs["forces"] = -torch.autograd.grad(total, data.pos, retain_graph=True)[0]
        return {"energy": outputs["energy"].unsqueeze(-1), "forces": outputs["forces"]}


class EnergyNetwork(Network):
    """A network of one column a graph, on the edges of the case, whatever the cutoff."""

    def found(self, model: Model, data: Data) -> dict[str, Tensor]:
        if "edge_index" in data and model.cutoff is not None:
            order = data.edge_index[1].argsort(stable=True)
            data.edge_index = data.edge_index[:, order]
            data.edge_cutoff = data.pos.new_full((int(data.batch.max()) + 1,), model.cutoff)
        return {name: value.unsqueeze(-1) for name, value in super().found(model, data).items()}


class OrientationNetwork(Network):
    """A network of functions on positions and orientations, before any head: outputs scalar and vector."""

    def found(self, model: Model, data: Data) -> dict[str, Tensor]:
        if not isinstance(model, PONITA):
            raise DataError(f"{type(model).__name__} has no orientations.")
        x = model.encode(data, build_graph(data, model.cutoff))
        scalars, vectors = x[:, : model.scalars], x[:, model.scalars :]
        return {"scalar": scalars} | ({"vector": vectors.reshape(len(x), -1, 3)} if model.vectors else {})

    def mend(self, model: Model, data: Data, parts: dict[str, dict[str, Tensor]]) -> str:
        if (
            not isinstance(model, PONITA)
            or not model.num_orientations
            or any(key.endswith("ori_grid") for key in parts["param"])
        ):
            return ""
        model.requires_grad_(False)

        def outputs(points: Tensor) -> dict[str, Tensor]:
            model.points = points
            return self.found(model, data)

        model.points = recover_orientations(outputs, model.points, parts["output"])
        return "the grid of orientations is not in the file; recovered from the outputs, which are more numbers"


_EGNN_INPUTS = {"h": "x", "pos": "pos", "vel": "vel", "edge_index": "edge_index", "edge_attr": "edge_attr"}

#: folder of a case -> its network, or what else is compared.
NETWORKS: dict[str, Network | PrincipalFrames] = {
    "egnn": Network(EGNN, _EGNN_INPUTS | {"batch": "batch"}, {"h": "features", "pos": "positions"}),
    "egnn_velocity": Network(EGNN, _EGNN_INPUTS, {"pos": "positions"}, squares=1),
    "equiformer": EnergyNetwork(
        Equiformer, {"z": "z", "pos": "pos", "edge_index": "edge_index", "batch": "batch"}, {"y": "energy"}
    ),
    "equiformer_v2": Network(
        EquiformerV2,
        {"z": "z", "pos": "pos", "edge_index": "edge_index", "batch": "batch"},
        {"energy": "energy", "forces": "forces"},
    ),
    "escn": Network(
        ESCN,
        {"z": "z", "pos": "pos", "edge_index": "edge_index", "batch": "batch"},
        {"energy": "energy", "forces": "forces"},
    ),
    "faenet": ColumnNetwork(
        FAENet,
        {"z": "z", "pos": "pos", "edge_index": "edge_index", "batch": "batch", "tags": "tags"},
        {"energy": "energy", "forces": "forces"},
    ),
    "frames": PrincipalFrames(),
    "ponita": OrientationNetwork(PONITA, {"x": "x", "pos": "pos", "edge_index": "edge_index", "batch": "batch"}, {}),
    "se3_transformer": DegreeNetwork(SE3Transformer, _EGNN_INPUTS | {"batch": "batch"}, {}),
}


@dataclass(frozen=True)
class CaseResult:
    """Relative error of each output of a case, its limit, and what else is to be said."""

    path: Path
    errors: dict[str, float]
    limits: dict[str, float]
    remark: str = ""

    @property
    def passed(self) -> bool:
        return all(error <= self.limits[name] for name, error in self.errors.items())


def check_case(path: Path, network: str | None = None) -> CaseResult:
    """Run one case.

    Args:
        path: of the safetensors file.
        network: which published network; by default the name of the folder.

    Raises:
        DataError: the file or its JSON is missing or broken, or the network is unknown.
        CheckpointError: the parameters do not fit the hyperparameters.
    """
    tensors, hyperparameters, spread = _read(path)
    name = network or path.resolve().parent.name
    if name not in NETWORKS:
        raise DataError(f"{path}: {unknown_name('network', name, NETWORKS)} Name it with --network.")
    known = NETWORKS[name]
    parts = {kind: _part(tensors, kind) for kind in ("param", "input", "output")}
    dtype = parts["input"]["pos"].dtype if "pos" in parts["input"] else torch.float64
    found, remark = known.run(parts, hyperparameters)
    missing = sorted(set(parts["output"]) - set(found))
    if missing:
        raise DataError(f"{path}: has outputs that are not compared: {', '.join(missing)}.")
    errors = {key: _relative(found[key], value) for key, value in sorted(parts["output"].items())}
    # Our frames are one more draw, which may lie a little outside of those few.
    limits = {key: max(_TOLERANCE[dtype], 2 * spread.get(key, 0.0)) for key in errors}
    loose = ", ".join(key for key, limit in limits.items() if limit > _TOLERANCE[dtype])
    if loose:
        remark = f"the published code itself spreads by more than the tolerance: {loose}"
    return CaseResult(path, errors, limits, remark)


def _probe(outputs: dict[str, Tensor]) -> Tensor:
    """The number whose derivative by the positions a case holds as ``grad_pos``."""
    total = next(iter(outputs.values())).new_zeros(())
    for name, value in outputs.items():
        weights = torch.linspace(0, 1, value.numel(), dtype=value.dtype) if name == "pos" else torch.ones(value.numel())
        total = total + (value.flatten() * weights).sum()
    return total


def _relative(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape:
        return float("inf")
    error = float((found - expected).detach().abs().max() / expected.abs().max())
    return error if error == error else float("inf")


def _part(tensors: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{kind}."): value for key, value in tensors.items() if key.startswith(f"{kind}.")}


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, object], dict[str, float]]:
    """Tensors, hyperparameters, and by how much the published outputs differ from one run to the next."""
    description = path.with_suffix(".json")
    for file in (path, description):
        if not file.is_file():
            raise DataError(f"{file} is missing; a case is a .safetensors file with a .json of the same name.")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is not a whole safetensors file ({error}).") from error
    try:
        given = json.loads(description.read_text())
        hyperparameters = dict(given["hyperparameters"]) if _part(tensors, "param") else {}
        spread = given.get("frame_spread", {})
        if isinstance(spread, list):  # in the order of the outputs
            spread = dict(zip(given["outputs"], spread, strict=True))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{description} is not JSON with 'hyperparameters' ({error!r}).") from error
    return tensors, hyperparameters, spread


def run(paths: Sequence[str | Path], network: str | None = None) -> tuple[list[str], bool]:
    """Check every case.

    Returns:
        The lines of a table (a case and output each), and whether all are within their tolerance.
    """
    results = [check_case(Path(path), network) for path in paths]
    width = max((len(str(result.path)) for result in results), default=4)
    lines = [f"{'case':<{width}}  {'output':<10}  {'error':>8}  {'limit':>8}"]
    for result in results:
        for name, error in result.errors.items():
            limit = result.limits[name]
            verdict = "ok" if error <= limit else "FAILED"
            lines.append(f"{result.path!s:<{width}}  {name:<10}  {error:8.1e}  {limit:8.1e}  {verdict}")
        if result.remark:
            lines.append(f"  note: {result.remark}")
    return lines, bool(results) and all(result.passed for result in results)
