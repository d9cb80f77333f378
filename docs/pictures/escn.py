"""Draw docs/families/escn.png: functions on the sphere rotate with the molecule, up to an error of the grid.

python docs/pictures/escn.py
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from e3nn import o3
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch_geometric.data import Data

from geoeq.graph import build_graph
from geoeq.layers.irreps.layout import to_coefficients
from geoeq.models import ESCN, SampledScalar
from geoeq.symmetry import equivariance_errors, random_batch

INK, BLUE, ORANGE, GREY = "#22303c", "#1f6fb2", "#d9662c", "#8a97a3"
COLORS = {1: "#b9c3cc", 6: "#4b5a67", 7: BLUE, 8: ORANGE}
ANGLE = math.radians(75)
TARGET = Path(__file__).parent.parent / "families" / "escn.png"
LMAX, CHANNELS = 4, 16

#: A planar molecule (formamide), Å.
ELEMENTS = torch.tensor([6, 8, 7, 1, 1, 1])
POSITIONS = [[0.0, 0.42], [1.2, 0.24], [-0.94, -0.56], [-0.44, 1.43], [-1.92, -0.33], [-0.65, -1.53]]


def network(resolution: int | None, lmax: int = LMAX) -> ESCN:
    torch.manual_seed(3)
    sizes = {"channels": CHANNELS, "hidden_channels": CHANNELS, "edge_channels": CHANNELS, "layers": 2}
    heads = [SampledScalar("energy", degree=60)]
    model = ESCN(heads, lmax, min(lmax, 2), resolution=resolution, cutoff=5.0, num_basis=16, **sizes)
    return model.double()


def curves(model: ESCN, pos: Tensor, angles: Tensor) -> Tensor:
    """Return one channel of each atom in the directions of the plane, minus its mean over directions, [N, angles]."""
    data = Data(z=ELEMENTS, pos=pos)
    with torch.no_grad():
        x = to_coefficients(model.encode(data, build_graph(data, model.cutoff)), LMAX, CHANNELS)[..., 0]
    x[:, 0] = 0
    directions = torch.stack([angles.cos(), angles.sin(), torch.zeros_like(angles)], dim=-1)
    harmonics = o3.spherical_harmonics([*range(LMAX + 1)], directions, True, "component")
    return x @ harmonics.T


def draw(axes: Axes, pos: Tensor, values: Tensor, angles: Tensor, style: dict[str, object]) -> None:
    radius = 0.55 + 0.4 * values / values.abs().max()  # [N, angles]
    for center, curve in zip(pos, radius, strict=True):
        axes.plot(center[0] + curve * angles.cos(), center[1] + curve * angles.sin(), **style)


def molecule(axes: Axes, pos: Tensor, title: str) -> None:
    for i in range(len(pos)):
        for j in range(i):
            if (pos[i] - pos[j]).norm() < 1.6:
                axes.plot(
                    *zip(pos[i, :2].tolist(), pos[j, :2].tolist(), strict=True), color=GREY, linewidth=2, zorder=1
                )
    colors = [COLORS[number] for number in ELEMENTS.tolist()]
    axes.scatter(pos[:, 0], pos[:, 1], s=[90 if n > 1 else 40 for n in ELEMENTS.tolist()], c=colors, zorder=2)
    axes.set(xlim=(-2.6, 2.5), ylim=(-2.5, 2.6), aspect="equal", xticks=[], yticks=[])
    axes.set_title(title, fontsize=10, color=INK, loc="left")


def main() -> None:
    flat = torch.tensor(POSITIONS, dtype=torch.float64)
    start = torch.cat([flat, torch.zeros(len(flat), 1)], dim=-1)
    cosine, sine = math.cos(ANGLE), math.sin(ANGLE)
    rotation = torch.tensor([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]], dtype=torch.float64)
    angles = torch.linspace(0, 2 * math.pi, 181, dtype=torch.float64)
    model = network(18)
    before, after = curves(model, start, angles), curves(model, start @ rotation.T, angles)
    expected = curves(model, start, angles - ANGLE)  # the left panel, rotated

    figure = Figure(figsize=(9.6, 3.4), dpi=100, layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=[1, 1, 1.05])
    molecule(left, start, "f(x)")
    draw(left, start, before, angles, {"color": INK, "linewidth": 1.4, "zorder": 3})
    molecule(middle, start @ rotation.T, "f(Rx); dots: R f(x)")
    draw(middle, start @ rotation.T, after, angles, {"color": INK, "linewidth": 1.4, "zorder": 3})
    dots = {"color": ORANGE, "linestyle": "", "marker": "o", "markersize": 1.8, "zorder": 4}
    draw(middle, start @ rotation.T, expected[:, ::6], angles[::6], dots)

    sizes = [10, 14, 18, 22, 26, 30, 36]
    batch = random_batch(dtype=torch.float64)
    for lmax, color in ((2, BLUE), (4, ORANGE), (6, INK)):
        known = [size for size in sizes if size >= 2 * (lmax + 1)]
        errors = []
        for size in known:
            by_symmetry = equivariance_errors(network(size, lmax), batch, symmetries=("rotation",), samples=4)
            errors.append(max(by_symmetry.values()))
        right.semilogy(known, errors, color=color, marker="o", markersize=4, linewidth=1.4, label=f"L = {lmax}")
    right.legend(frameon=False, fontsize=9, loc="lower left")
    right.set_xlabel("latitudes and longitudes of the grid", fontsize=9)
    right.set_title("relative error of the energy under rotation", fontsize=10, color=INK, loc="left")
    right.grid(color="#eef1f4")
    for axes in (left, middle, right):
        axes.tick_params(labelsize=8)
        for side in axes.spines.values():
            side.set_color("#dfe4e8")
    figure.savefig(TARGET, format="png")


if __name__ == "__main__":
    main()
