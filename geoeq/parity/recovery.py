"""Recover inputs that the file of a parity case lacks: input positions, or a grid of orientations.

Positions: the published N-body network moves its input in place, so a case that was saved after the run has the
predicted positions as ``input.pos``. The initial positions can be recovered: the second edge attribute is
``|x_i - x_j|²`` of the true input, which determines the shape of each graph up to a rotation, a reflection and a
translation, and these six numbers follow from the 15 of the output. There are more equations than unknowns, so there is
no solution for a network that differs from the authors'.

Orientations: the published fibre-bundle network draws its grid, points that repel each other, when it is created, and
does not store it. The outputs determine it, up to the order of the points, if they are more numbers than its angles.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch_geometric.data import Data

from geoeq.errors import DataError
from geoeq.geometry.rotations import random_rotations

__all__ = ["contradicts", "recover_orientations", "recover_positions"]

#: number of rotations from which the search for positions starts, for each mirror image, and of its steps.
STARTS = 12
STEPS = 25
#: number of rotations tested for orientations, of the best ones from which a search starts, and of its steps.
ROTATIONS, BEST_ROTATIONS, ROTATION_STEPS = 1500, 8, 30


def contradicts(positions: Tensor, edge_index: Tensor, squares: Tensor) -> bool:
    """Return whether the squared distances of positions along the edges differ from ``squares`` [E]."""
    distances = (positions[edge_index[0]] - positions[edge_index[1]]).square().sum(-1)
    tolerance = torch.finfo(squares.dtype).eps ** 0.5
    return not torch.allclose(distances, squares, rtol=tolerance, atol=tolerance)


def recover_positions(network: Callable[[Data], Tensor], data: Data, squares: Tensor, output: Tensor) -> Tensor:
    """Return positions with the given distances that the network maps to ``output``.

    Args:
        network: function from a batch without ``batch`` (its edges define the graphs) to predicted positions [N, 3].
        data: the case; its ``pos`` is not used. Each graph is fully connected, and its nodes are contiguous.
        squares: squared distances of the input, [E].
        output: predicted positions of the case, [N, 3].

    Returns:
        [N, 3]; if a graph has no solution, the positions that come closest, and later graphs are skipped.

    Raises:
        DataError: a graph is not fully connected.
    """
    matrix = squares.new_full((len(output), len(output)), float("nan")).fill_diagonal_(0)
    matrix[data.edge_index[0], data.edge_index[1]] = squares
    first = (~matrix.isnan()).double().argmax(1)  # [N] the first node of each node's graph
    result = output.clone()
    for number, start in enumerate(first.unique().tolist()):
        nodes = (first == start).nonzero().squeeze(-1)
        shape = _shape(matrix[nodes][:, nodes], number)
        graph = data.subgraph(nodes)

        def moved(positions: Tensor, graph: Data = graph) -> Tensor:
            graph.pos = positions
            return network(graph)

        result[nodes], solved = _search(moved, shape, output[nodes], torch.Generator().manual_seed(number))
        if not solved:
            break
    return result


def _search(
    network: Callable[[Tensor], Tensor], shape: Tensor, output: Tensor, generator: torch.Generator
) -> tuple[Tensor, bool]:
    best, error = output, float("inf")
    for start in range(2 * STARTS):
        positions, miss = _fit(network, shape if start % 2 else -shape, output, generator)
        if miss < error:
            best, error = positions, miss
        if error < torch.finfo(output.dtype).eps ** 0.7 * float(output.abs().max()):
            return best, True
    return best, False


def _shape(squares: Tensor, number: int) -> Tensor:
    """Return centred points [n, 3] with squared distances [n, n], by classical multidimensional scaling."""
    if squares.isnan().any():
        raise DataError(f"Graph {number} is not fully connected: its distances do not give its shape.")
    centering = torch.eye(len(squares), dtype=squares.dtype) - 1 / len(squares)
    values, vectors = torch.linalg.eigh(-0.5 * centering @ squares @ centering)
    points: Tensor = vectors[:, -3:] * values[-3:].clamp(min=0).sqrt()
    return points


def _rotation(vector: Tensor) -> Tensor:
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.matrix_exp(torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).reshape(3, 3))


def _fit(
    network: Callable[[Tensor], Tensor], shape: Tensor, output: Tensor, generator: torch.Generator
) -> tuple[Tensor, float]:
    """Fit the rotation by Levenberg-Marquardt from a random start; the translation follows from the centroid."""
    frame, _ = torch.linalg.qr(torch.randn(3, 3, dtype=shape.dtype, generator=generator))
    frame = frame * frame.det().sign()
    target = output - output.mean(0)

    def residual(vector: Tensor) -> Tensor:
        predicted = network(shape @ (_rotation(vector) @ frame).T)
        return (predicted - predicted.mean(0) - target).flatten()

    damping = 1.0
    here = torch.zeros(3, dtype=shape.dtype)
    miss = residual(here).detach()
    for _ in range(STEPS):
        jacobian = torch.autograd.functional.jacobian(residual, here)
        normal = jacobian.T @ jacobian
        damped = normal + damping * normal.diagonal().mean() * torch.eye(3, dtype=shape.dtype)
        step = torch.linalg.solve(damped, -jacobian.T @ miss)
        with torch.no_grad():
            trial = residual(step)
        if trial.norm() < miss.norm():
            frame, miss, damping = _rotation(step) @ frame, trial, damping / 10
        else:
            damping *= 10
        if damping > 1e8 or float(step.norm()) < 1e-15:
            break
    rotated = shape @ frame.T
    with torch.no_grad():
        translation = (output - network(rotated)).mean(0)
    return rotated + translation, float(miss.abs().max())


def recover_orientations(
    network: Callable[[Tensor], dict[str, Tensor]], points: Tensor, outputs: dict[str, Tensor]
) -> Tensor:
    """Return unit vectors that the network maps to the outputs.

    Args:
        network: function from points [P, 3] to outputs by name.
        points: approximate arrangement of the points; the search starts from random rotations of it.
        outputs: outputs of the case.

    Returns:
        [P, 3]; if there is no solution, the points that come closest.

    Raises:
        DataError: there are no more outputs than angles, so that a solution would prove nothing.
    """
    scales = {key: float(value.abs().max()) for key, value in sorted(outputs.items())}
    target = torch.cat([outputs[key].flatten() / scale for key, scale in scales.items()])  # [M]
    if len(target) <= 2 * len(points):
        raise DataError(f"{len(target)} outputs do not determine {len(points)} orientations.")

    def residual(flat: Tensor) -> Tensor:
        predicted = network(torch.nn.functional.normalize(flat.view(-1, 3), dim=-1))
        return torch.cat([predicted[key].flatten() / scale for key, scale in scales.items()]) - target

    rotations = random_rotations(ROTATIONS, torch.Generator().manual_seed(0), points.dtype)
    starts = (points @ rotations.transpose(1, 2)).flatten(1)  # [ROTATIONS, 3 P]
    with torch.no_grad():
        misses = torch.stack([residual(start).norm() for start in starts])
    best, error = points, float("inf")
    for start in starts[misses.argsort()[:BEST_ROTATIONS]]:
        fitted, miss = _fit_points(residual, start)
        if miss < error:
            best, error = fitted.view(-1, 3), miss
        if error < torch.finfo(points.dtype).eps ** 0.7:
            break
    return best


def _fit_points(residual: Callable[[Tensor], Tensor], here: Tensor) -> tuple[Tensor, float]:
    """Fit all points by Levenberg-Marquardt, projecting them to the sphere after each step."""
    damping, miss = 0.1, residual(here).detach()
    for _ in range(ROTATION_STEPS):
        jacobian = torch.autograd.functional.jacobian(residual, here)
        normal = jacobian.T @ jacobian
        damped = normal + damping * normal.diagonal().mean() * torch.eye(len(here), dtype=here.dtype)
        step = torch.linalg.solve(damped, -jacobian.T @ miss)
        with torch.no_grad():
            there = torch.nn.functional.normalize((here + step).view(-1, 3), dim=-1).flatten()
            trial = residual(there)
        if trial.norm() < miss.norm():
            here, miss, damping = there, trial, damping / 5
        else:
            damping *= 4
        if damping > 1e8 or float(miss.norm()) < 1e-12:
            break
    return here, float(miss.abs().max())
