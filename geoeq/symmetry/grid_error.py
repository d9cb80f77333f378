"""Equivariance error of functions that are sampled at points of the sphere, measured with more points."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from geoeq.geometry.groups import Output, relative_error
from geoeq.layers.sphere.s2_grid import S2Grid
from geoeq.models.heads.sampled_heads import SphereNetwork

__all__ = ["MARGIN", "stated_error", "with_finer_grids"]

#: Factor from the change of the outputs with finer grids to the error that is accepted. If g is the function with exact
#: grids and ``d`` bounds ``|f - g|``, then ``|f(Rx) - R f(x)| <= 2 d``. With few features the change in one orientation
#: may be a thousand times that in another: it is measured in the orientations that are compared, or in several.
MARGIN = 16.0


def with_finer_grids(candidate: object) -> nn.Module | None:
    """Return a copy of a module whose grids are twice as fine; None if it has no grids."""
    if not isinstance(candidate, nn.Module) or not _has_grids(candidate):
        return None
    twin = copy.deepcopy(candidate)
    for parent in list(twin.modules()):
        for name, part in parent.named_children():
            if isinstance(part, S2Grid | SphereNetwork):
                setattr(parent, name, part.finer())
    return twin


def _has_grids(module: nn.Module) -> bool:
    return any(isinstance(part, S2Grid | SphereNetwork) for part in module.modules())


def stated_error(
    candidate: object, evaluate: Callable[[Any], Mapping[str, Tensor | Output]], twin: nn.Module | None = None
) -> float:
    """Return the relative error of rotations that a candidate cannot avoid, because it samples the sphere.

    It is ``MARGIN`` times the change of its outputs when its grids are refined: a mistake that breaks equivariance
    elsewhere changes nothing here, and so is not excused. A candidate may state a bound itself: ``equivariance_error``.

    Args:
        candidate: module, function or calculator.
        evaluate: function that applies a candidate, this one or its copy with finer grids, to fixed inputs.
        twin: its copy with finer grids, if there is one already.
    """
    own = float(getattr(candidate, "equivariance_error", 0.0))
    twin = with_finer_grids(candidate) if twin is None else twin
    if twin is None or not _has_grids(twin):
        return own
    finer = evaluate(twin)
    changes = [relative_error(_value(finer[name]), _value(value)) for name, value in evaluate(candidate).items()]
    return max([own, *(MARGIN * change for change in changes)])


def _value(output: Tensor | Output) -> Tensor:
    return output.value if isinstance(output, Output) else output
