"""Paths of depthwise ("uvu") and fully connected ("uvw") tensor products."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from e3nn import o3

from geoeq.errors import InputError
from geoeq.kernels import Mode, Path, Paths
from geoeq.layers.irreps.layout import irreps_blocks
from geoeq.layers.layer import Group

__all__ = ["depthwise_paths", "fully_connected_paths", "harmonics_group"]


def harmonics_group(irreps_harmonics: o3.Irreps) -> Group:
    """Return "SE(3)" if a harmonic has a parity other than (-1)^l, as in networks without reflections, else "E(3)".

    Raises:
        InputError: a degree occurs more than once.
    """
    _check_harmonics(irreps_harmonics)
    return "E(3)" if all(ir.p == (-1) ** ir.l for _, ir in irreps_harmonics) else "SE(3)"


def _check_harmonics(irreps_harmonics: o3.Irreps) -> None:
    counts: Counter[int] = Counter()
    for mul, ir in irreps_harmonics:
        counts[ir.l] += mul
    for degree, count in counts.items():
        if count != 1:
            raise InputError(
                f"irreps_harmonics '{irreps_harmonics}' has {count} harmonics of degree {degree}. An edge has one "
                "direction, and so one harmonic of each degree: write '1o', not '2x1o'. For a second factor with "
                "several channels, use e3nn.o3.TensorProduct."
            )


def _couplings(
    irreps_in: o3.Irreps, irreps_harmonics: o3.Irreps, keep: Collection[o3.Irrep]
) -> list[tuple[int, o3.Irrep, o3.Irrep]]:
    """Return (input block, harmonic, output) in e3nn's usual order, for outputs in ``keep``."""
    _check_harmonics(irreps_harmonics)
    couplings = [
        (block, harmonic, out)
        for block, (_, ir) in enumerate(irreps_in)
        for _, harmonic in irreps_harmonics
        for out in ir * harmonic
        if out in keep
    ]
    unreached = [out for out in dict.fromkeys(keep) if out not in {out for _, _, out in couplings}]
    if unreached:
        raise InputError(
            f"No path from {irreps_in} with harmonics {irreps_harmonics} reaches {', '.join(map(str, unreached))}."
        )
    return couplings


def depthwise_paths(
    irreps_in: o3.Irreps, irreps_harmonics: o3.Irreps, keep: Collection[o3.Irrep]
) -> tuple[Paths, o3.Irreps]:
    """Return the paths of a product in which each coupling of an input block and a harmonic has its own channels.

    Each path has the factor ``sqrt(2 l_out + 1)`` (e3nn's "component" normalisation).

    Args:
        irreps_in: irreps of the features.
        irreps_harmonics: irreps of the harmonics, one of each degree.
        keep: irreps of the result.

    Returns:
        The paths, ordered by input block, harmonic and output; and the irreps of the result, sorted and simplified, in
        which paths to the same irrep are adjacent.

    Raises:
        InputError: no path reaches one of ``keep``, or a degree has several harmonics.
    """
    couplings = _couplings(irreps_in, irreps_harmonics, keep)
    order = sorted({out for _, _, out in couplings})
    filled = dict.fromkeys(order, 0)
    parts, weight_start = [], 0
    for block, harmonic, out in couplings:
        channels = irreps_in[block].mul
        parts.append((block, channels, harmonic, out, filled[out], weight_start))
        filled[out] += channels
        weight_start += channels
    paths = tuple(
        Path(
            degrees=(irreps_in[block].ir.l, harmonic.l, out.l),
            x_block=block,
            x_channels=channels,
            out_block=order.index(out),
            out_channel=channel,
            out_channels=channels,
            weight_start=start,
            mode="uvu",
            coefficient=out.dim**0.5,
        )
        for block, channels, harmonic, out, channel, start in parts
    )
    irreps_out = o3.Irreps([(filled[out], out) for out in order])
    return Paths(paths, irreps_blocks(irreps_in), irreps_blocks(irreps_out)), irreps_out


def fully_connected_paths(irreps_in: o3.Irreps, irreps_harmonics: o3.Irreps, irreps_out: o3.Irreps) -> Paths:
    """Return the paths of a product in which each coupling contributes to every channel of the output.

    Each path has e3nn's factor ``sqrt((2 l_out + 1) / Σ U)``, the sum over the paths into its block.

    Args:
        irreps_in, irreps_harmonics: as for ``depthwise_paths``.
        irreps_out: irreps of the result.

    Returns:
        The paths, ordered by input block, harmonic and output block.

    Raises:
        InputError: no path reaches one of ``irreps_out``, or a degree has several harmonics.
    """
    couplings = [
        (block, harmonic, out)
        for block, harmonic, ir in _couplings(irreps_in, irreps_harmonics, [ir for _, ir in irreps_out])
        for out, (_, other) in enumerate(irreps_out)
        if other == ir
    ]
    couplings.sort(key=lambda entry: (entry[0], [ir for _, ir in irreps_harmonics].index(entry[1]), entry[2]))
    mode: Mode = "uvw"
    paths, weight_start = [], 0
    for block, harmonic, out in couplings:
        mul, ir = irreps_out[out]
        channels = irreps_in[block].mul
        fan_in = sum(irreps_in[other].mul for other, _, target in couplings if target == out)
        paths.append(
            Path(
                degrees=(irreps_in[block].ir.l, harmonic.l, ir.l),
                x_block=block,
                x_channels=channels,
                out_block=out,
                out_channel=0,
                out_channels=mul,
                weight_start=weight_start,
                mode=mode,
                coefficient=(ir.dim / fan_in) ** 0.5,
            )
        )
        weight_start += channels * mul
    return Paths(tuple(paths), irreps_blocks(irreps_in), irreps_blocks(irreps_out))
