"""Messages of the SE(3)-Transformer: kernels of learned radial functions and spherical harmonics."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from geoeq.errors import InputError, check_name, check_sizes
from geoeq.kernels.operators.path_messages import path_messages
from geoeq.kernels.operators.path_plan import PathPlan
from geoeq.layers.irreps.layout import Fiber, split_blocks
from geoeq.layers.layer import edge_attributes
from geoeq.layers.se3_transformer.edge_basis import EdgeBasis, coupling_constants

__all__ = ["Activation", "RadialSharing", "SE3Messages"]

#: Which pairs of degrees share a radial network.
RadialSharing = Literal["all", "output", "input", "none"]
Activation = Literal["silu", "relu"]


class SE3Messages(nn.Module):
    """Messages ``m_e^k = Σ_l W^{kl}(e) x_sender^l`` with learned equivariant kernels (eq. 8).

    The kernels are ``W^{kl}(e) = Σ_J φ_J^{kl}(inputs of e) Σ_M Y_JM(e) C_JM^{kl}``. The functions φ are linear maps of
    the output of small networks with two hidden layers.

    Args:
        degrees_in: (degree, channels) of the features.
        degrees_out: (degree, channels) of the messages.
        edge_width: number of columns of ``graph.edge_attr``, inputs of the radial networks.
        distance: whether the length of an edge is another input, as published.
        hidden: width H of the radial networks.
        sharing: one radial network for "all" pairs of degrees, one for each "output" or "input" degree, or one for
            each pair ("none").
        radial_norm: whether the radial networks have layer norms.
        activation: activation of the radial networks; "relu", as published, gives discontinuous forces.

    Shapes:
        blocks: [N, 2 l + 1, C_l] of each degree. Returns [E, 2 k + 1, C_k] of each degree, in the order of the graph.

    Raises:
        InputError: an option is unknown, or the radial networks have no input, or a number is out of range.
        TensorError: the edge attributes of the graph have the wrong width.

    Source:
        Fuchs et al., NeurIPS 2020, arXiv:2006.10503, eq. 8.
    """

    def __init__(
        self,
        degrees_in: Fiber,
        degrees_out: Fiber,
        edge_width: int,
        distance: bool = False,
        hidden: int = 32,
        sharing: RadialSharing = "all",
        radial_norm: bool = True,
        activation: Activation = "silu",
    ) -> None:
        super().__init__()
        check_sizes(self, hidden=hidden)
        check_sizes(self, least=0, edge_width=edge_width)
        check_name("sharing", sharing, get_args(RadialSharing))
        check_name("activation", activation, get_args(Activation))
        if edge_width + distance < 1:
            raise InputError("The radial networks have no input: give edge_width, or distance=True.")
        self.degrees_in, self.degrees_out, self.distance = degrees_in, degrees_out, distance
        self.edge_width = edge_width
        ins = [(entry,) for entry in degrees_in] if sharing in ("input", "none") else [degrees_in]
        outs = [(entry,) for entry in degrees_out] if sharing in ("output", "none") else [degrees_out]
        self.plans = [PathPlan(some_in, some_out, hidden) for some_out in outs for some_in in ins]
        self.coupled = [plan.degrees for plan in self.plans]
        for n, plan in enumerate(self.plans):
            self.register_buffer(f"constants_{n}", coupling_constants(plan.bare), persistent=False)
        self.radial = nn.ModuleList(
            _radial_network(edge_width + distance, hidden, radial_norm, activation) for _ in self.plans
        )
        self.weights = nn.ParameterList(self._initial_weight(plan) for plan in self.plans)

    def _initial_weight(self, plan: PathPlan) -> nn.Parameter:
        """Return random weights with which features of unit variance give messages of about unit variance."""
        weight = torch.randn(plan.weight_numel)
        for pair in plan.pairs:
            terms = plan.hidden * sum(
                width * (2 * min(degree, pair.degree_out) + 1) for degree, width in self.degrees_in
            )
            weight[pair.weight] *= math.sqrt(4 * math.pi * (2 * pair.degree_out + 1) / (0.3 * terms))
        return nn.Parameter(weight)

    def forward(self, blocks: list[Tensor], basis: EdgeBasis) -> list[Tensor]:
        if self.edge_width or basis.graph.edge_attr is not None:
            edge_attributes(basis.graph, self.edge_width, "SE3Messages")
        inputs = basis.inputs(self.distance)  # [E, A]
        x_by_degree = {degree: block.flatten(1) for (degree, _), block in zip(self.degrees_in, blocks, strict=True)}
        total: dict[int, Tensor] = {}
        for n, (plan, radial, weight) in enumerate(zip(self.plans, self.radial, self.weights, strict=True)):
            x = torch.cat([x_by_degree[degree] for degree in self.coupled[n][0]], dim=-1)
            couplings = basis.couplings(self.coupled[n], self.get_buffer(f"constants_{n}"))
            message = path_messages(x, radial(inputs), weight, couplings, basis.pointers, plan)
            for (degree, _), part in zip(plan.outputs, message.split(_sizes(plan.outputs), dim=-1), strict=True):
                total[degree] = total[degree] + part if degree in total else part
        rows = torch.cat([total[degree] for degree, _ in self.degrees_out], dim=-1).index_select(0, basis.inverse)
        return split_blocks(rows, tuple((2 * degree + 1, channels) for degree, channels in self.degrees_out))


def _sizes(degrees: Fiber) -> list[int]:
    """Return the number of columns of each degree."""
    return [(2 * degree + 1) * channels for degree, channels in degrees]


def _radial_network(width: int, hidden: int, norm: bool, activation: Activation) -> nn.Sequential:
    parts: list[nn.Module] = []
    for size in (width, hidden):
        parts.append(nn.Linear(size, hidden))
        parts.extend([nn.LayerNorm(hidden)] if norm else [])
        parts.append(nn.SiLU() if activation == "silu" else nn.ReLU())
    return nn.Sequential(*parts)
