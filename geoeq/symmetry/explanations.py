"""Attributions of a model's output to atoms, and scores of their invariance and equivariance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from e3nn import o3
from torch import Tensor
from torch_geometric.data import Batch, Data

from geoeq.derivatives import derivatives, differentiable, gradients_enabled
from geoeq.errors import FieldError, InputError
from geoeq.fields import field
from geoeq.geometry.groups import Output, Symmetry, random_element
from geoeq.symmetry.functions import INVARIANT_FEATURES
from geoeq.symmetry.probe_structures import NODE_INPUTS
from geoeq.symmetry.subject import Outputs

__all__ = ["Attribution", "ExplanationScore", "explanation_scores", "gradient_attribution", "occlusion_attribution"]

#: Function from a model, structures and the name of an output to the contribution of each atom.
Attribution = Callable[[Outputs, Batch, str], Output]


def gradient_attribution(model: Outputs, data: Batch, name: str = "energy") -> Output:
    """Compute the derivative of a graph-level output by the positions: a vector for each atom.

    Shapes:
        The value is [N, 3], in the unit of the output per Å.

    Raises:
        FieldError: the output is not a graph-level scalar.
    """
    _check(name)
    with gradients_enabled():
        moved = differentiable(data)
        moved.pos = moved.pos.detach().requires_grad_()
        (gradient,) = derivatives(model(moved)[name], moved, name=name)
    return Output(gradient, "node", o3.Irreps("1o"))


def occlusion_attribution(model: Outputs, data: Batch, name: str = "energy") -> Output:
    """Compute the difference of a graph-level output with and without an atom: a number for each atom.

    The only atom of a graph contributes all of the output. Edges of the data are ignored; the model builds them.

    Shapes:
        The value is [N], in the unit of the output.

    Raises:
        FieldError: the output is not a graph-level scalar.
    """
    _check(name)
    with torch.no_grad():
        whole = model(data)[name].reshape(-1)[data.batch]  # [N]
        graphs = data.to_data_list()
        parts = [_without(graph, atom) for graph in graphs for atom in range(graph.num_nodes)]
        nonempty = [part for part in parts if part is not None]
        rest = torch.zeros_like(whole)
        if nonempty:
            present = torch.tensor([part is not None for part in parts])
            rest[present] = model(Batch.from_data_list(nonempty))[name].reshape(-1)
    return Output(whole - rest, "node", o3.Irreps("0e"))


def _without(graph: Data, atom: int) -> Data | None:
    if graph.num_nodes == 1:
        return None
    rows = torch.arange(graph.num_nodes) != atom
    kept = {key: value[rows] for key, value in graph.to_dict().items() if key in ("pos", *NODE_INPUTS)}
    shared = {key: graph[key] for key in ("cell", "pbc", "total_charge") if key in graph}
    return Data(**kept, **shared)


def _check(name: str) -> None:
    known = field(name)
    if (known.level, known.irreps) != ("graph", "0e"):
        raise FieldError(
            f"'{name}' is a {known.level} quantity with irreps {known.irreps}; attributions need a graph-level scalar, "
            "such as the energy."
        )


@dataclass(frozen=True)
class ExplanationScore:
    """Mean cosine similarities of an explanation under a group; 1 is perfect.

    Attributes:
        invariance: similarity of ``e(g·x)`` and ``e(x)``.
        equivariance: similarity of ``e(g·x)`` and ``g·e(x)``.
    """

    invariance: float
    equivariance: float


def explanation_scores(
    attribution: Attribution,
    model: Outputs,
    data: Batch,
    name: str = "energy",
    *,
    symmetries: Sequence[Symmetry] = ("rotation", "reflection", "translation", "permutation"),
    samples: int = 8,
    seed: int = 0,
) -> dict[str, ExplanationScore]:
    """Measure the invariance and equivariance of an explanation for each symmetry.

    ``Inv = 1/|S| Σ_g cos(e(g·x), e(x))`` and ``Equiv = 1/|S| Σ_g cos(e(g·x), g·e(x))`` over random elements g. For a
    symmetric model, gradient and occlusion are equivariant; under rotations, occlusion is also invariant. An
    equivariance below 1 means that the explanation depends on the pose of a structure or on the order of its atoms.

    Args:
        attribution: ``gradient_attribution``, ``occlusion_attribution`` or a custom function.
        model: model to explain.
        data: structures, with equal weights.
        name: output to explain.
        symmetries: symmetries to check.
        samples: number of group elements per symmetry.
        seed: random seed of the group elements.

    Raises:
        FieldError: the output is not a graph-level scalar.
        InputError: samples is less than 1.

    Source:
        Crabbé & van der Schaar, NeurIPS 2023, arXiv:2304.06715, its two metrics with the cosine similarity. Differs:
        explanations belong to nodes, and vectors among them rotate with the structure; a structure whose explanation
        is zero before and after counts as 1.
    """
    if samples < 1:
        raise InputError(f"samples is {samples}; a mean needs at least one group element.")
    generator = torch.Generator().manual_seed(seed)
    before = attribution(model, data, name)
    scores = {}
    for symmetry in symmetries:
        invariance, equivariance = [], []
        for _ in range(samples):
            element = random_element(symmetry, data, generator)
            after = attribution(model, element.on_data(data, INVARIANT_FEATURES), name)
            invariance.append(_cosine(after.value, before.value, data.batch))
            equivariance.append(_cosine(after.value, element.on_output(before), data.batch))
        scores[str(symmetry)] = ExplanationScore(_mean(invariance), _mean(equivariance))
    return scores


def _mean(values: list[Tensor]) -> float:
    return float(torch.stack(values).mean())


def _cosine(one: Tensor, two: Tensor, batch: Tensor) -> Tensor:
    """Return the mean over graphs of the cosine similarity of two explanations."""
    graphs = int(batch.max()) + 1

    def product(a: Tensor, b: Tensor) -> Tensor:
        return a.new_zeros(graphs).index_add(0, batch, (a * b).reshape(len(a), -1).sum(-1))

    lengths = (product(one, one) * product(two, two)).sqrt()
    both_zero = (product(one, one) == 0) & (product(two, two) == 0)
    cosine = torch.where(lengths > 0, product(one, two) / lengths.clamp(min=1e-300), torch.zeros_like(lengths))
    return torch.where(both_zero, torch.ones_like(cosine), cosine).mean()
