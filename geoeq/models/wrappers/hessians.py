"""Second derivatives of the energy by the positions: Hessian-vector products and whole Hessians."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from geoeq.derivatives import derivatives, differentiable, gradients_enabled
from geoeq.errors import InputError

__all__ = ["hessian", "hessian_vector_product"]

Potential = Callable[[Data], Mapping[str, Tensor]]


def hessian_vector_product(model: Potential, data: Data, vectors: Tensor) -> Tensor:
    """Return ``Σ_j ∂²E/∂r_i∂r_j v_j`` from one derivative of the forces.

    Args:
        model: model whose "forces" can be differentiated, such as ``geoeq.models.Forces``.
        data: one structure or a batch.
        vectors: a vector v for each atom.

    Shapes:
        vectors: [N, 3]. Returns [N, 3], eV/Å^2 times the unit of the vectors.

    Raises:
        InputError: the model predicts no forces, or they are not connected to the positions by differentiable
            operations, as those of an exported potential.
    """
    with gradients_enabled():
        moved = differentiable(data)
        moved.pos = moved.pos.detach().requires_grad_()
        outputs = model(moved)
        if "forces" not in outputs:
            raise InputError(
                "A Hessian consists of derivatives of forces: pass a model with forces, such as Forces(model)."
            )
        forces = outputs["forces"]
        weights = -vectors.clone().to(forces)  # a clone, as vectors may be of inference mode
        return derivatives(forces, moved, name="forces", weights=weights)[0]


def hessian(model: Potential, data: Data, *, chunk_size: int | None = None) -> Tensor:
    """Return the Hessian of the energy of one structure, ``H_ij = ∂²E/∂r_i∂r_j``.

    Several columns are computed at once, in a batch with one copy of the structure for each.

    Args:
        model: model whose "forces" can be differentiated, such as ``geoeq.models.Forces``.
        data: one structure.
        chunk_size: number of columns computed at once, with the memory of a training step on that many structures.
            None for batches of about 1000 atoms.

    Shapes:
        Returns [N, 3, N, 3], eV/Å^2, symmetric to rounding.

    Raises:
        InputError: there are several structures, chunk_size is not positive, or the model predicts no forces.
    """
    num_nodes = len(data.pos)
    if "batch" in data and data.batch is not None and num_nodes and int(data.batch.max()) > 0:
        raise InputError("A Hessian belongs to one structure: compute it for each structure of the batch.")
    size = chunk_size if chunk_size is not None else max(1000 // max(num_nodes, 1), 1)
    if size < 1:
        raise InputError(f"chunk_size is {size}; it must be 1 or more.")
    single = Data(**{key: data[key] for key in data.keys() if key not in ("batch", "ptr")})  # noqa: SIM118
    columns = torch.eye(3 * num_nodes, dtype=data.pos.dtype, device=data.pos.device)
    products = []
    for vectors in columns.split(size):  # [K, 3 N]
        copies = Batch.from_data_list([single] * len(vectors))
        product = hessian_vector_product(model, copies, vectors.reshape(-1, 3))
        products.append(product.detach().reshape(len(vectors), -1))
    return torch.cat(products).mT.reshape(num_nodes, 3, num_nodes, 3)
