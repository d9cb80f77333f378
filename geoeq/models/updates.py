"""Updates of stored checkpoints: one function for each older format version."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from torch import Tensor

from geoeq.errors import CheckpointError

__all__ = ["UPDATES", "Contents"]

#: Description and tensors of a checkpoint.
Contents: TypeAlias = tuple[dict[str, Any], dict[str, Tensor]]

#: class path -> arguments that version 1 did not have, with the values that give its numbers.
_AS_IN_VERSION_1: dict[str, dict[str, Any]] = {
    "geoeq.models.EGNN": {"count": "clamped"},
    "geoeq.models.FrameAveraging": {"images": "listed"},
    "geoeq.models.FrameVectors": {"images": "listed"},
    "geoeq.models.NetworkCanonicalizer": {"images": "listed"},
    "geoeq.models.PCACanonicalizer": {"images": "listed"},
}


def _from_version_1(description: dict[str, Any], tensors: dict[str, Tensor]) -> Contents:
    """Add the arguments that version 1 did not have, so that a model keeps the numbers with which it was trained."""

    def updated(value: Any) -> Any:
        if isinstance(value, list):
            return [updated(entry) for entry in value]
        if not isinstance(value, Mapping):
            return value
        result = {key: updated(entry) for key, entry in value.items()}
        if "class_path" in result:
            arguments = result.get("init_args") or {}
            if result["class_path"] == "geoeq.models.SE3Transformer":
                _check_self_interaction(arguments)
            result["init_args"] = _AS_IN_VERSION_1.get(result["class_path"], {}) | arguments
        return result

    return {**description, "model": updated(description.get("model"))}, tensors


def _check_self_interaction(arguments: Mapping[str, Any]) -> None:
    """Refuse the one combination of options whose numbers have changed."""
    if arguments.get("self_per_edge") and arguments.get("cutoff") is not None:
        raise CheckpointError(
            "SE3Transformer with self_per_edge and a cutoff did not weight neighbours by the envelope in format "
            "version 1, so that its outputs jumped at the cutoff. Now it does: train it again, or use the geoeq that "
            "wrote it."
        )


#: older version -> function (description, tensors) -> (description, tensors) of the version after it. Whoever raises
#: FORMAT_VERSION adds a function here; stored checkpoints of all versions are among the tests.
UPDATES: dict[int, Callable[[dict[str, Any], dict[str, Tensor]], Contents]] = {1: _from_version_1}
