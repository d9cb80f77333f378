"""Layers, embeddings and models of any kind as functions of Data, whose outputs say how they turn."""

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

#: cutoff of the graph that a layer is tried on, in Å.
LAYER_CUTOFF = 4.0
#: degree of the harmonics of that graph.
LAYER_LMAX = 3
#: how ``data.x`` of the random structures turns, for what is no layer.
INVARIANT_FEATURES = o3.Irreps("4x0e")

Function = Callable[[Data], dict[str, Output]]


def as_function(candidate: object) -> tuple[Function, o3.Irreps]:
    """The candidate as a function of Data, and how its input ``data.x`` turns.

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
        raise InputError(f"{type(candidate).__name__} is neither a layer nor a model: it cannot be called.")
    model: Callable[[Data], Mapping[str, Tensor | Output]] = candidate

    def outputs(data: Data) -> dict[str, Output]:
        found = model(data).items()
        return {name: value if isinstance(value, Output) else named_output(name, value) for name, value in found}

    return outputs, INVARIANT_FEATURES


def layer_graph(layer: object, data: Data) -> Graph:
    """The graph that a layer is tried on: with the edge attributes that it needs, a Bessel basis of the distance."""
    graph = build_graph(data, LAYER_CUTOFF, lmax=LAYER_LMAX)
    width: int = getattr(layer, "edge_width", 0)
    return dataclasses.replace(graph, edge_attr=BesselBasis(width, LAYER_CUTOFF)(graph.lengths)) if width else graph


def _embedded(embedding: NodeEmbedding | IrrepsEmbedding | EdgeEmbedding) -> Function:
    """An embedding as a function of Data; what belongs to edges is summed at their receivers."""

    def inputs(data: Data) -> dict[str, Output]:
        if isinstance(embedding, EdgeEmbedding):
            graph = build_graph(data, LAYER_CUTOFF)
            value = kernels.segment_sum(embedding(data, graph), graph)
        else:
            value = embedding(data)
        irreps = embedding.irreps if isinstance(embedding, IrrepsEmbedding) else o3.Irreps(f"{value.shape[-1]}x0e")
        return {"embedding": Output(value, "node", irreps)}

    return inputs
