"""Rotations: conversion, sampling, comparison, averaging and fitting, and their action on features.

A rotation is a matrix [..., 3, 3] that acts on columns, ``R @ v``; rows of positions are rotated by ``pos @ R.mT``.
"""

from geoeq.geometry.rotations.conversions import (
    matrix_from_6d,
    matrix_from_9d,
    matrix_from_quaternion,
    matrix_from_rotation_vector,
    matrix_to_6d,
    matrix_to_9d,
    matrix_to_quaternion,
    matrix_to_rotation_vector,
)
from geoeq.geometry.rotations.distance import geodesic_distance, mean_rotation
from geoeq.geometry.rotations.finite import finite_group, is_finite_group
from geoeq.geometry.rotations.fitting import Alignment, align
from geoeq.geometry.rotations.orthogonalize import nearest_orthogonal, nearest_rotation
from geoeq.geometry.rotations.random_rotations import random_orthogonals, random_rotations, random_turns
from geoeq.geometry.rotations.tensors import irreps_to_matrix, matrix_to_irreps
from geoeq.geometry.rotations.wigner import MAX_DEGREE, wigner_blocks, wigner_d

__all__ = [
    "MAX_DEGREE",
    "Alignment",
    "align",
    "finite_group",
    "geodesic_distance",
    "irreps_to_matrix",
    "is_finite_group",
    "matrix_from_6d",
    "matrix_from_9d",
    "matrix_from_quaternion",
    "matrix_from_rotation_vector",
    "matrix_to_6d",
    "matrix_to_9d",
    "matrix_to_irreps",
    "matrix_to_quaternion",
    "matrix_to_rotation_vector",
    "mean_rotation",
    "nearest_orthogonal",
    "nearest_rotation",
    "random_orthogonals",
    "random_rotations",
    "random_turns",
    "wigner_blocks",
    "wigner_d",
]
