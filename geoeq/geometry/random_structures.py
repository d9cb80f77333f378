"""Random structures with all inputs that a model may use."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

__all__ = ["random_batch"]


def random_batch(
    sizes: tuple[int, ...] = (5, 1, 9, 2),
    *,
    periodic: bool = False,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Batch:
    """Return random structures with all inputs that a model may use: elements, velocities, charges, features.

    Args:
        sizes: number of atoms of each graph; the default includes a single atom.
        periodic: give each structure a triclinic cell, periodic in all directions.
        seed: seed of the random numbers.
        dtype: dtype of positions and features.

    Shapes:
        ``z`` [N], ``pos`` [N, 3] Å, ``vel`` [N, 3], ``charge`` [N] of ±1, ``x`` [N, 4],
        ``tags`` [N] of 0 to 2; periodic: ``cell`` [G, 3, 3].
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    graphs = []
    for size in sizes:
        grid = torch.cartesian_prod(*[torch.arange(4)] * 3)[torch.randperm(64, generator=generator)[:size]]
        pos = 1.5 * grid + 0.2 * normal(size, 3)
        data = Data(
            z=torch.tensor([1, 6, 7, 8, 16])[torch.randint(5, (size,), generator=generator)],
            pos=pos.to(dtype),
            vel=normal(size, 3).to(dtype),
            charge=(torch.randint(2, (size,), generator=generator) * 2 - 1).to(dtype),
            x=normal(size, 4).to(dtype),
            tags=torch.arange(size) % 3,
        )
        if periodic:
            data.cell = (6.5 * torch.eye(3, dtype=torch.float64) + 0.5 * normal(3, 3)).to(dtype).unsqueeze(0)
            data.pbc = torch.ones(1, 3, dtype=torch.bool)
        graphs.append(data)
    return Batch.from_data_list(graphs)
