"""How much one program does: a few sizes, of which the fastest is found where there is a GPU to time them on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from geoeq.kernels.paths import Paths
from geoeq.kernels.triton.compiler import interpreted, launch, time_of
from geoeq.kernels.triton.kernel import Kernel, Tile

__all__ = ["SCALARS", "fitting", "launch_fastest", "radial_tiles", "reads_all", "tiles"]

#: The dtype in which numbers of each dtype are multiplied and summed.
SCALARS = {
    torch.float64: "float64",
    torch.float32: "float32",
    torch.bfloat16: "float32",
    torch.float16: "float32",
}

#: Channels of a program at most: the numbers of four warps.
_CHANNELS = 128

#: Edges that tensor cores multiply at once, at the least.
_TOGETHER = 16

#: 32-bit registers of a thread (it has 255) that may be taken all the time where there is a choice.
_HELD = 96

#: Characters of a text beyond which compiling it takes seconds, too long to try others.
_LONG = 60_000

_fastest: dict[tuple[object, ...], Kernel] = {}


def tiles(paths: Paths, edges: int = 1) -> tuple[Tile, ...]:
    """Sizes to choose from, each for programs of one edge and of ``edges``; the first is right for anything.

    More channels of a thread share the work that does not depend on the channel; fewer leave more registers to each.
    """
    widest = max(path.x_channels for path in paths.paths)
    channels = min(_CHANNELS, max(16, 1 << (widest - 1).bit_length()))
    warps = sorted({max(1, channels // (32 * each)) for each in (1, 2, 4)}, reverse=True)
    return tuple(Tile(channels, number, each) for each in sorted({1, edges}) for number in warps)


def radial_tiles(paths: Paths, sizes: Sequence[tuple[int, int]]) -> tuple[Tile, ...]:
    """Tiles of so many channels, of those that there are, and so many columns of the hidden layer."""
    widest = max(16, *(path.x_channels for path in paths.paths))
    needed = 1 << (widest - 1).bit_length()
    narrowed = dict.fromkeys((min(channels, needed), units) for channels, units in sizes)
    return tuple(Tile(channels, max(4, channels // 8), 1, _TOGETHER, units) for channels, units in narrowed)


def reads_all(paths: Paths) -> bool:
    """Whether the paths read every block of the input."""
    return len({path.x_block for path in paths.paths}) == len(paths.x_blocks)


def fitting(kernels: list[Kernel]) -> tuple[Kernel, ...]:
    """Those that leave enough registers and are soon compiled, and always the first."""
    return (kernels[0], *(kernel for kernel in kernels[1:] if kernel.held <= _HELD and len(kernel.text) <= _LONG))


def launch_fastest(kernels: tuple[Kernel, ...], count: int, arguments: tuple[Tensor | int, ...]) -> None:
    """Run the one of the kernels that was the fastest for about as many rows, dtype and GPU."""
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
    """Where nothing may depend on timing, or nothing can be timed because launches are recorded."""
    return torch.are_deterministic_algorithms_enabled() or torch.cuda.is_current_stream_capturing()
