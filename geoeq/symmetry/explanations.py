"""Do explanations of a model's output have its symmetries? Attributions to atoms, and how invariant and equivariant."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from e3nn import o3
from torch import Tensor
from torch_geometric.data import Batch, Data

from geoeq.errors import FieldError, InputError
from geoeq.fields import field
from geoeq.geometry.groups import Output, Symmetry, random_element
from geoeq.symmetry.functions import INVARIANT_FEATURES

__all__ = ["Attribution", "ExplanationScore", "explanation_scores", "gradient_attribution", "occlusion_attribution"]

Outputs = Callable[[Data], Mapping[str, Tensor]]

_NODE_KEYS = ("z", "pos", "vel", "charge", "x", "tags")

#: model, structures and the name of an output to what each atom has to do with it.
Attribution = Callable[[Outputs, Batch, str], Output]


def gradient_attribution(model: Outputs, data: Batch, name: str = "energy") -> Output:
    """The derivative of an output of the graph by the positions: a vector for each atom.

    Shapes:
        The value is [N, 3], in the unit of the output per Å.

    Raises:
        FieldError: the output is not a number for a graph.
    """
    _check(name)
    moved = data.clone()
    moved.pos = data.pos.detach().clone().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(model(moved)[name].sum(), moved.pos)
    return Output(gradient, "node", o3.Irreps("1o"))


def occlusion_attribution(model: Outputs, data: Batch, name: str = "energy") -> Output:
    """By how much an output of the graph is larger with an atom than without it: a number for each atom.

    An atom that is alone in its graph has all of the output. Edges of the data are not used: the model finds them.

    Shapes:
        The value is [N], in the unit of the output.

    Raises:
        FieldError: the output is not a number for a graph.
    """
    _check(name)
    with torch.no_grad():
        whole = model(data)[name].reshape(-1)[data.batch]  # [N]
        graphs = data.to_data_list()
        parts = [_without(graph, atom) for graph in graphs for atom in range(graph.num_nodes)]
        kept = [part for part in parts if part is not None]
        rest = torch.zeros_like(whole)
        if kept:
            present = torch.tensor([part is not None for part in parts])
            rest[present] = model(Batch.from_data_list(kept))[name].reshape(-1)
    return Output(whole - rest, "node", o3.Irreps("0e"))


def _without(graph: Data, atom: int) -> Data | None:
    if graph.num_nodes == 1:
        return None
    rows = torch.arange(graph.num_nodes) != atom
    kept = {key: value[rows] for key, value in graph.to_dict().items() if key in _NODE_KEYS}
    cell = {key: graph[key] for key in ("cell", "pbc") if key in graph}
    return Data(**kept, **cell)


def _check(name: str) -> None:
    known = field(name)
    if (known.level, known.irreps) != ("graph", "0e"):
        raise FieldError(f"'{name}' is a {known.level} quantity with irreps {known.irreps}; an atom contributes to a "
                         "number of the graph, such as the energy.")  # fmt: skip


@dataclass(frozen=True)
class ExplanationScore:
    """How an explanation behaves under a group: mean cosine similarities, 1 at the best.

    Attributes:
        invariance: of ``e(g·x)`` and ``e(x)``.
        equivariance: of ``e(g·x)`` and ``g·e(x)``.
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
    """Invariance and equivariance of an explanation, for each symmetry.

    ``Inv = 1/|S| Σ_g cos(e(g·x), e(x))`` and ``Equiv = 1/|S| Σ_g cos(e(g·x), g·e(x))`` over random elements g. For a
    symmetric model gradient and occlusion are equivariant; under rotations occlusion is invariant besides. An
    equivariance below 1 says that the explanation depends on the pose of a structure or on the order of its atoms.

    Args:
        attribution: ``gradient_attribution``, ``occlusion_attribution`` or a function of yours.
        model: the model that is explained.
        data: structures; each counts by itself.
        name: the output that is explained.
        symmetries: which to try.
        samples: group elements of each.
        seed: of these.

    Raises:
        FieldError: the output is not a number for a graph.
        InputError: there is no sample.

    Source:
        Crabbé & van der Schaar, NeurIPS 2023, arXiv:2304.06715, its two metrics with the cosine similarity. Differs:
        explanations are of nodes, and vectors of these turn with the structure; a structure whose explanation is zero
        before and after counts as 1.
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
    """The mean over graphs of the cosine of the angle between two explanations."""
    graphs = int(batch.max()) + 1

    def product(a: Tensor, b: Tensor) -> Tensor:
        return a.new_zeros(graphs).index_add(0, batch, (a * b).reshape(len(a), -1).sum(-1))

    lengths = (product(one, one) * product(two, two)).sqrt()
    both_zero = (product(one, one) == 0) & (product(two, two) == 0)
    cosine = torch.where(lengths > 0, product(one, two) / lengths.clamp(min=1e-300), torch.zeros_like(lengths))
    return torch.where(both_zero, torch.ones_like(cosine), cosine).mean()
