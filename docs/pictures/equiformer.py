"""Draw docs/families/equiformer.png: energy and force while a neighbour crosses the cutoff.

python docs/pictures/equiformer.py
"""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch_geometric.data import Data

from geoeq.models import Equiformer, GraphScalar

INK, BLUE, ORANGE, GREY = "#22303c", "#1f6fb2", "#d9662c", "#8a97a3"
TARGET = Path(__file__).parent.parent / "families" / "equiformer.png"
CUTOFF = 5.0
#: Positions of a water molecule in Å; a carbon atom leaves it along the first axis.
NEAR = [[0.0, 0.0, 0.0], [-0.76, 0.59, 0.0], [-0.76, -0.59, 0.0]]
ELEMENTS = torch.tensor([8, 1, 1, 6])


def network(smooth: bool) -> Equiformer:
    torch.manual_seed(3)
    model = Equiformer(
        [GraphScalar("energy")],
        irreps="32x0e+16x1e+8x2e",
        irreps_head="8x0e+4x1e+2x2e",
        irreps_middle="32x0e+16x1e+8x2e",
        irreps_out="32x0e",
        layers=2,
        num_basis=16,
        radial_hidden=(16,),
        cutoff=CUTOFF,
        smooth=smooth,
    )
    return model.double().eval()


def curve(model: Equiformer, distances: Tensor) -> tuple[Tensor, Tensor]:
    """Return the energy, and the force along the axis, at each distance."""
    energies, forces = [], []
    for distance in distances:
        carbon = torch.tensor([[float(distance), 0.0, 0.0]], dtype=torch.float64)
        pos = torch.cat([torch.tensor(NEAR, dtype=torch.float64), carbon]).requires_grad_()
        energy = model(Data(z=ELEMENTS, pos=pos))["energy"].sum()
        (gradient,) = torch.autograd.grad(energy, pos)
        energies.append(float(energy.detach()))
        forces.append(-float(gradient[3, 0]))
    return torch.tensor(energies), torch.tensor(forces)


def main() -> None:
    pieces = [torch.linspace(3.0, CUTOFF - 1e-6, 160), torch.linspace(CUTOFF + 1e-6, 6.4, 100)]
    figure = Figure(figsize=(7.2, 3.0), dpi=110, layout="constrained")
    panels = figure.subplots(1, 2)
    for smooth, color, label in [(False, ORANGE, "as published"), (True, BLUE, "smooth (default)")]:
        model = network(smooth)
        last = curve(model, pieces[1][-1:])[0]
        for number, distances in enumerate(pieces):
            energies, forces = curve(model, distances)
            for axes, values in zip(panels, [energies - last, forces], strict=True):
                axes.plot(distances, values, color=color, linewidth=1.8, label=label if number == 0 else None)
    for axes, title in zip(panels, ["energy", "force on the leaving atom"], strict=True):
        axes.axvline(CUTOFF, color=GREY, linewidth=0.8, linestyle=":")
        axes.set_title(title, fontsize=11, color=INK, loc="left")
        axes.set_xlabel("O–C distance [Å]", fontsize=9, color=INK)
        axes.tick_params(labelsize=8, colors=INK)
        axes.margins(x=0)
        for side in axes.spines.values():
            side.set_color("#dfe4e8")
    panels[0].legend(frameon=False, fontsize=9, labelcolor=INK)
    figure.savefig(TARGET, format="png")


if __name__ == "__main__":
    main()
