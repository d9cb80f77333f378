"""Products of features with harmonics, one of which a convolution selects by name, and of features with features."""

from __future__ import annotations

from typing import Literal, get_args

from geoeq.errors import InputError, check_name
from geoeq.layers.layer import Group
from geoeq.layers.products.clebsch_gordan import ClebschGordanProduct, clebsch_gordan_product
from geoeq.layers.products.edge_frame import EdgeFrameProduct
from geoeq.layers.products.gaunt import GauntGrid, GauntGridProduct, GauntProduct, SphereProduct, gaunt_factor
from geoeq.layers.products.gaunt_fourier import GauntFourier, GauntFourierProduct
from geoeq.layers.products.product import EdgeProduct, Triple, product_paths

__all__ = [
    "ClebschGordanProduct",
    "EdgeFrameProduct",
    "EdgeProduct",
    "GauntFourier",
    "GauntFourierProduct",
    "GauntGrid",
    "GauntGridProduct",
    "GauntProduct",
    "Product",
    "SphereProduct",
    "Triple",
    "clebsch_gordan_product",
    "edge_product",
    "gaunt_factor",
    "product_paths",
]

#: Names of the products of features and harmonics.
Product = Literal["clebsch_gordan", "gaunt_fourier", "gaunt_grid", "edge_frame"]


def edge_product(
    name: Product, channels: int, lmax: int, lmax_edge: int | None = None, group: Group = "E(3)"
) -> EdgeProduct:
    """Return the product of this name, whose input and output have degrees up to lmax.

    Args:
        name: "clebsch_gordan", "gaunt_fourier", "gaunt_grid" or "edge_frame".
        channels, lmax: as for ``EdgeProduct``.
        lmax_edge: highest degree of the harmonics, by default lmax; "edge_frame" always uses all, up to 2 lmax.
        group: "SE(3)" includes the paths of odd l1 + l2 + l3, which the Gaunt products lack.

    Raises:
        InputError: the name is unknown, or the product does not support an option.
    """
    check_name("product", name, get_args(Product))
    if name == "clebsch_gordan":
        return ClebschGordanProduct(channels, lmax, lmax_edge, group=group)
    if name == "edge_frame":
        if lmax_edge is not None:
            raise InputError(f"edge_frame uses harmonics of every degree: omit lmax_edge ({lmax_edge}).")
        return EdgeFrameProduct(channels, lmax, group=group)
    if group != "E(3)":
        raise InputError(f"{name} multiplies signals on the sphere, which respects reflections: group is 'E(3)'.")
    return (GauntFourierProduct if name == "gaunt_fourier" else GauntGridProduct)(channels, lmax, lmax_edge)
