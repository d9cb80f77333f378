"""Tile sizes of the kernels; on a GPU the fastest of several is chosen by timing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from geoeq.kernels.paths import Paths
from geoeq.kernels.triton.compiler import interpreted, launch, time_of
from geoeq.kernels.triton.kernel import Kernel, Tile

__all__ = ["SCALARS", "fitting", "launch_fastest", "radial_tiles", "reads_all", "tiles"]

#: Dtype in which numbers of each dtype are multiplied and summed.
SCALARS = {
    torch.float64: "float64",
    torch.float32: "float32",
    torch.bfloat16: "float32",
    torch.float16: "float32",
}

#: Maximum number of channels of a program: one per thread of four warps.
_CHANNELS = 128

#: Minimum number of edges that tensor cores multiply at once.
_TOGETHER = 16

#: Limit on the 32-bit registers of a thread (it has 255) that are occupied throughout, if there is a choice.
_HELD = 96

#: Number of characters of a text above which compilation takes seconds, too long to time alternatives.
_LONG = 60_000

_fastest: dict[tuple[object, ...], Kernel] = {}


def tiles(paths: Paths, edges: int = 1) -> tuple[Tile, ...]:
    """Return the tiles to choose from, each for programs of one edge and of ``edges``; the first one always fits.

    With more channels per thread, more of them share the work that does not depend on the channel; with fewer, each has
    more registers.
    """
    widest = max(path.x_channels for path in paths.paths)
    channels = min(_CHANNELS, max(16, 1 << (widest - 1).bit_length()))
    warps = sorted({max(1, channels // (32 * each)) for each in (1, 2, 4)}, reverse=True)
    return tuple(Tile(channels, number, each) for each in sorted({1, edges}) for number in warps)


def radial_tiles(paths: Paths, sizes: Sequence[tuple[int, int]]) -> tuple[Tile, ...]:
    """Return the tiles with these numbers of channels, limited to those of the paths, and of hidden columns."""
    widest = max(16, *(path.x_channels for path in paths.paths))
    needed = 1 << (widest - 1).bit_length()
    narrowed = dict.fromkeys((min(channels, needed), units) for channels, units in sizes)
    return tuple(Tile(channels, max(4, channels // 8), 1, _TOGETHER, units) for channels, units in narrowed)


def reads_all(paths: Paths) -> bool:
    """Return whether the paths read every block of the input."""
    return len({path.x_block for path in paths.paths}) == len(paths.x_blocks)


def fitting(kernels: list[Kernel]) -> tuple[Kernel, ...]:
    """Return the kernels that leave enough registers and compile quickly; the first one is always included."""
    return (kernels[0], *(kernel for kernel in kernels[1:] if kernel.held <= _HELD and len(kernel.text) <= _LONG))


def launch_fastest(kernels: tuple[Kernel, ...], count: int, arguments: tuple[Tensor | int, ...]) -> None:
    """Launch the fastest of the kernels, as timed for this dtype, GPU and approximate number of rows."""
    like = next(argument for argument in arguments if isinstance(argument, Tensor))
    size = count.bit_length() // 2  # a factor of four
    key = kernels, size, like.dtype, like.device
    if key not in _fastest:
        if len(kernels) == 1 or count == 0 or interpreted() or _untimed():
            launch(kernels[0], count, arguments)
            return
        times = [time_of(kernel, count, arguments) for kernel in kernels]
        _fastest[key] = kernels[times.index(min(times))]
    launch(_fastest[key], count, arguments)


def _untimed() -> bool:
    """Return whether nothing may depend on timing, or cannot be timed because launches are being captured."""
    return torch.are_deterministic_algorithms_enabled() or torch.cuda.is_current_stream_capturing()
