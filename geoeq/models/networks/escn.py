"""eSCN: equivariant spherical channel network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self, get_args

import torch
from e3nn import o3
from torch import Tensor, nn
from torch_geometric.data import Data

from geoeq.errors import InputError, check_name, check_positive, check_sizes
from geoeq.graph import Graph, edge_frames, with_frames
from geoeq.layers.edge_frames.so2 import frame_matrix
from geoeq.layers.escn import ESCNLayer
from geoeq.layers.inputs.embedding import EdgeEmbedding, EdgeInput, IrrepsEmbedding, NodeInput
from geoeq.layers.irreps.layout import from_coefficients, sphere_irreps, to_coefficients
from geoeq.layers.layer import Group, RadialFunction
from geoeq.layers.radial.bases import GaussianBasis, SigmoidBasis, SiLUBasis
from geoeq.layers.sphere.s2_grid import Normalization
from geoeq.models.heads.head import Head
from geoeq.models.heads.sampled_heads import SampledScalar, SampledVector
from geoeq.models.model import Model
from geoeq.models.published.escn_weights import reference_arguments, reference_parameters
from geoeq.models.published.parameters import fill_parameters

__all__ = ["ESCN", "DistanceBasis"]

DistanceBasis = Literal["gaussian", "sigmoid", "linear_sigmoid", "silu"]

# The published networks keep the 20 nearest neighbours within the cutoff.
_OC20 = {"cutoff": 12.0, "num_basis": 600, "basis_spread": 2.0, "edge_channels": 128, "average_degree": 20.0}


class ESCN(Model):
    """Network of functions on the sphere, with SO(2) convolutions in the frames of edges.

    It is equivariant only up to an error, which falls fast with the resolution of its grids. The heads
    ``SampledScalar`` and ``SampledVector`` are the published ones; any other head works as well.

    Args:
        heads: heads of the predicted quantities, for example ``[SampledScalar("energy"), SampledVector("forces")]``.
        lmax, mmax: highest degree of the features, and highest order in the frames of edges.
        channels: number C of channels of every degree.
        hidden_channels: number of hidden channels of messages.
        edge_channels: number of invariants of an edge.
        layers: number of message-passing layers.
        resolution: number of latitudes and longitudes of the grids, even; None takes the smallest, as published.
        normalization: normalization of the values on the grids, see ``S2Grid``; "integral" as published.
        average_degree: divisor of the sums over neighbours; 1 as published.
        first_residual: add the input of the first layer to its output, too; False as published.
        cutoff: cutoff radius in Å; messages decay smoothly to zero there. None takes ``data.edge_index``, or connects
            all atoms of a graph; messages are then as published.
        basis: radial basis: "gaussian", "sigmoid", "linear_sigmoid" or "silu".
        num_basis: number of basis functions.
        basis_spread: width of the Gaussians, or sharpness of the sigmoids, relative to what the spacing implies.
        basis_cutoff: radius at which the basis ends, in Å; by default the cutoff.
        node_inputs: inputs of a node: "element", "charge", "speed", "features" (``data.x``).
        features_irreps: irreps of ``data.x``.
        velocity: use ``data.vel`` as a vector input.
        edge_inputs: inputs of an edge besides its length, see ``EdgeEmbedding``.
        edge_attr_width: number of columns of ``data.edge_attr``.
        detach_frames: treat the frames of edges as constants in derivatives, as the published code does; forces from
            the derivative of the energy then have errors of 0.1 to 1 %.
        elements: atomic numbers that the model accepts; None for any.

    Shapes:
        Positions in Å (or dimensionless throughout). Features are ``Cx0e + Cx1o + Cx2e + ...``.

    Raises:
        InputError: an option is unknown, or neither a cutoff nor a basis_cutoff is given, or a number is out of range.

    Source:
        Passaro & Zitnick, ICML 2023, arXiv:2302.03655. Differs: with a cutoff, messages decay smoothly to zero there;
        derivatives go through the frames; the frame of an edge is a smooth function of its direction, not random;
        values on the grids have the magnitude of the coefficients, and the first layer has a residual, without both of
        which the signal almost vanishes at the start; edges may have further inputs, and nodes inputs other than
        elements.
    """

    group: Group = "SE(3)"

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "oc20": _OC20 | {"lmax": 6, "mmax": 2, "layers": 12, "channels": 128, "hidden_channels": 256},
        "oc20-l4": _OC20 | {"lmax": 4, "mmax": 2, "layers": 12, "channels": 128, "hidden_channels": 256},
        "oc20-large": _OC20 | {"lmax": 6, "mmax": 3, "layers": 20, "channels": 160, "hidden_channels": 384},
    }

    def __init__(
        self,
        heads: Sequence[Head],
        lmax: int = 4,
        mmax: int = 2,
        channels: int = 64,
        hidden_channels: int = 64,
        edge_channels: int = 64,
        layers: int = 4,
        resolution: int | None = 14,
        normalization: Normalization = "component",
        average_degree: float = 1.0,
        first_residual: bool = True,
        cutoff: float | None = None,
        basis: DistanceBasis = "gaussian",
        num_basis: int = 64,
        basis_spread: float = 1.0,
        basis_cutoff: float | None = None,
        node_inputs: Sequence[NodeInput] = ("element",),
        features_irreps: str = "",
        velocity: bool = False,
        edge_inputs: Sequence[EdgeInput] = (),
        edge_attr_width: int = 0,
        detach_frames: bool = False,
        elements: Sequence[int] | None = None,
    ) -> None:
        check_sizes(self, channels=channels, hidden_channels=hidden_channels, edge_channels=edge_channels)
        check_sizes(self, layers=layers, resolution=resolution, num_basis=num_basis)
        check_sizes(self, least=0, lmax=lmax, mmax=mmax, edge_attr_width=edge_attr_width)
        check_positive(self, average_degree=average_degree, basis_spread=basis_spread, basis_cutoff=basis_cutoff)
        irreps = sphere_irreps(lmax, channels)
        super().__init__(heads, irreps, cutoff, elements=elements)
        self.degree, self.mmax, self.channels = lmax, mmax, channels
        self.detach_frames = detach_frames
        self.embedding = IrrepsEmbedding(irreps, node_inputs, o3.Irreps(features_irreps), velocity, self.group)
        end = cutoff if basis_cutoff is None else basis_cutoff
        self.basis = _distance_basis(basis, num_basis, end, basis_spread)
        self.edge_embedding = EdgeEmbedding(edge_inputs, edge_attr_width, cutoff=end)
        sizes = lmax, mmax, channels, hidden_channels, edge_channels, num_basis + self.edge_embedding.width
        self.layers = nn.ModuleList(
            ESCNLayer(
                *sizes,
                elements="element" in node_inputs,
                resolution=resolution,
                normalization=normalization,
                average_degree=average_degree,
                residual=first_residual or layer > 0,
                cutoff=cutoff,
            )
            for layer in range(layers)
        )

    @property
    def inexact_derivatives(self) -> str:
        """Name of the option that makes derivatives by the positions inexact; empty if they are exact."""
        return "detach_frames" if self.detach_frames else ""

    @classmethod
    def example(cls) -> Self:
        heads = [SampledScalar("energy"), SampledVector("forces")]
        return cls(heads, 2, 1, 4, 4, 4, layers=2, resolution=14, cutoff=4.0, num_basis=8)

    def encode(self, data: Data, graph: Graph) -> Tensor:
        attributes = [self.basis(graph.lengths), self.edge_embedding(data, graph)]
        edge_attr = torch.cat([part for part in attributes if part is not None], dim=-1)  # [E, A]
        graph = with_frames(dataclasses.replace(graph, edge_attr=edge_attr), self.degree, self.detach_frames)
        frame = frame_matrix(edge_frames(graph, self.degree), self.degree, self.mmax)
        x = to_coefficients(self.embedding(data), self.degree, self.channels)  # [N, (L + 1)², C]
        for layer in self.layers:
            x = layer.on_sphere(x, graph, frame)  # type: ignore[operator]
        return from_coefficients(x, self.degree)

    @classmethod
    def from_reference(cls, state_dict: Mapping[str, Tensor], **hyperparameters: Any) -> Self:
        """Return the authors' network, from parameters under their names and its own hyperparameters.

        Edges are those of ``data.edge_index``, as in the authors' code without neighbour search. Outputs are
        "energy", which their code scales by 0.001, and with ``regress_forces`` "forces".

        Args:
            hyperparameters: cutoff, lmax_list and mmax_list (of one entry), num_layers, sphere_channels,
                hidden_channels, edge_channels, num_sphere_samples, distance_function, basis_width_scalar,
                distance_resolution, max_num_elements, regress_forces, resolution; options of the neighbour search and
                the output are accepted and ignored.
        """
        arguments = reference_arguments(hyperparameters)
        model = cls(**arguments)
        parameters = reference_parameters(state_dict, arguments)
        fill_parameters(model, parameters)
        model.to(next(iter(state_dict.values())).dtype)
        for name, buffer in model.named_buffers():
            if name in parameters:
                buffer.copy_(parameters[name])
        return model


def _distance_basis(name: str, width: int, cutoff: float | None, spread: float) -> RadialFunction:
    check_name("distance basis", name, get_args(DistanceBasis))
    if name == "silu":
        return SiLUBasis(width)
    if cutoff is None:
        raise InputError("ESCN without a cutoff needs basis_cutoff: the distance at which its radial basis ends.")
    if name == "gaussian":
        return GaussianBasis(width, cutoff, spread)
    return SigmoidBasis(width, cutoff, spread, slope=0.001 if name == "linear_sigmoid" else 0.0)
