"""Adapt layers, embeddings and models to functions of Data whose outputs state how they transform."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from e3nn import o3
from torch import Tensor
from torch_geometric.data import Data

from geoeq import kernels
from geoeq.errors import InputError
from geoeq.geometry.groups import Output, named_output
from geoeq.graph import Graph, build_graph
from geoeq.layers.inputs.embedding import EdgeEmbedding, IrrepsEmbedding, NodeEmbedding
from geoeq.layers.layer import Layer, RadialFunction, Rowwise
from geoeq.layers.radial.bases import BesselBasis

__all__ = ["INVARIANT_FEATURES", "Function", "as_function", "layer_graph"]

#: Cutoff of the graph on which a layer is tested, in Å.
LAYER_CUTOFF = 4.0
#: Degree of the harmonics of that graph.
LAYER_LMAX = 3
#: Irreps of ``data.x`` of the random structures, for subjects that are not layers.
INVARIANT_FEATURES = o3.Irreps("4x0e")

Function = Callable[[Data], dict[str, Output]]


def as_function(candidate: object) -> tuple[Function, o3.Irreps]:
    """Return the candidate as a function of Data, and the irreps of its input ``data.x``.

    Raises:
        InputError: it cannot be called.
    """
    if isinstance(candidate, RadialFunction):
        radial = candidate

        def lengths(data: Data) -> dict[str, Output]:
            graph = build_graph(data, LAYER_CUTOFF)
            value = kernels.segment_sum(radial(graph.lengths), graph)
            return {"sum over edges": Output(value, "node", o3.Irreps(f"{radial.width}x0e"))}

        return lengths, INVARIANT_FEATURES
    if isinstance(candidate, NodeEmbedding | IrrepsEmbedding | EdgeEmbedding):
        return _embedded(candidate), INVARIANT_FEATURES
    if isinstance(candidate, Rowwise):
        rowwise = candidate

        def rows(data: Data) -> dict[str, Output]:
            return {"features": Output(rowwise(data.x), "node", rowwise.irreps_out)}

        return rows, rowwise.irreps_in
    irreps_in, irreps_out = getattr(candidate, "irreps_in", None), getattr(candidate, "irreps_out", None)
    if isinstance(candidate, Layer) or (isinstance(irreps_in, o3.Irreps) and isinstance(irreps_out, o3.Irreps)):
        layer: Callable[..., Tensor] = candidate  # type: ignore[assignment]
        irreps = o3.Irreps(irreps_out)

        def features(data: Data) -> dict[str, Output]:
            return {"features": Output(layer(data.x, layer_graph(layer, data)), "node", irreps)}

        return features, o3.Irreps(irreps_in)
    if not callable(candidate):
        raise InputError(f"{type(candidate).__name__} is neither a layer nor a model, because it cannot be called.")
    model: Callable[[Data], Mapping[str, Tensor | Output]] = candidate

    def outputs(data: Data) -> dict[str, Output]:
        values = model(data).items()
        return {name: value if isinstance(value, Output) else named_output(name, value) for name, value in values}

    return outputs, INVARIANT_FEATURES


def layer_graph(layer: object, data: Data) -> Graph:
    """Build the graph on which a layer is tested; edge attributes, if needed, are a Bessel basis of the distance."""
    graph = build_graph(data, LAYER_CUTOFF, lmax=LAYER_LMAX)
    width: int = getattr(layer, "edge_width", 0)
    return dataclasses.replace(graph, edge_attr=BesselBasis(width, LAYER_CUTOFF)(graph.lengths)) if width else graph


def _embedded(embedding: NodeEmbedding | IrrepsEmbedding | EdgeEmbedding) -> Function:
    """Adapt an embedding to a function of Data; values of edges are summed at their receivers."""

    def inputs(data: Data) -> dict[str, Output]:
        if isinstance(embedding, EdgeEmbedding):
            graph = build_graph(data, LAYER_CUTOFF)
            value = kernels.segment_sum(embedding(data, graph), graph)
        else:
            value = embedding(data)
        irreps = embedding.irreps if isinstance(embedding, IrrepsEmbedding) else o3.Irreps(f"{value.shape[-1]}x0e")
        return {"embedding": Output(value, "node", irreps)}

    return inputs
