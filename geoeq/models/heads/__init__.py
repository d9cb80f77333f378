"""Heads: node features to named outputs."""

from __future__ import annotations

from geoeq.errors import FieldError
from geoeq.fields import field
from geoeq.models.heads.head import Head
from geoeq.models.heads.scalar_heads import GraphScalar, NodeFeatures, NodeScalar
from geoeq.models.heads.vector_heads import Dipole, NodeVector, Positions

__all__ = [
    "Dipole",
    "GraphScalar",
    "Head",
    "NodeFeatures",
    "NodeScalar",
    "NodeVector",
    "Positions",
    "default_head",
]


def default_head(name: str) -> Head:
    """Return the standard head for the field ``name``.

    Raises:
        FieldError: the field is unknown, or no head predicts it.
    """
    known = field(name)
    if name in ("dipole", "dipole_norm"):
        return Dipole(name)
    if name == "positions":
        return Positions()
    heads: dict[tuple[str, str], type[GraphScalar | NodeScalar | NodeVector]] = {
        ("graph", "0e"): GraphScalar,
        ("node", "0e"): NodeScalar,
        ("node", "1o"): NodeVector,
    }
    if (known.level, known.irreps) not in heads:
        raise FieldError(f"No head predicts '{name}' ({known.level}, {known.irreps}).")
    return heads[known.level, known.irreps](name)
