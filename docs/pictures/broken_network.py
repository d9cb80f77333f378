"""Check a network with a deliberately broken layer, for docs/check.md; writes check.png and check.txt.

python docs/pictures/broken_network.py
"""

from __future__ import annotations

from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory

import torch
from e3nn import o3
from torch import Tensor, nn

from geoeq.graph import Graph
from geoeq.models import GraphScalar, NodeVector, TensorFieldNetwork


class Saturate(nn.Module):
    """Bound each component of a vector separately, which breaks equivariance."""

    irreps_in = irreps_out = o3.Irreps("4x0e + 4x1o + 4x2e")

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        return torch.cat([x[:, :4], x[:, 4:16].tanh(), x[:, 16:]], dim=-1)


class BrokenNetwork(TensorFieldNetwork):
    """A tensor field network with ``Saturate`` between its layers."""

    @classmethod
    def example(cls) -> BrokenNetwork:
        heads = [GraphScalar("energy"), NodeVector("forces")]
        network = cls(heads, width=4, layers=2, lmax=2, hidden=[8], neighbors=4.0, cutoff=4.0, num_basis=4)
        network.layers.insert(1, Saturate())
        return network


if __name__ == "__main__":
    from geoeq.cli.check import check

    with TemporaryDirectory() as folder:
        lines, _ = check("broken_network.BrokenNetwork", layers=True, output=Path(folder))
        copyfile(Path(folder) / "check.png", Path(__file__).with_name("check.png"))
    Path(__file__).with_name("check.txt").write_text("\n".join(lines[:-2]) + "\n")
