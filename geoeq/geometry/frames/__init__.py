"""Frames that rotate with structures: all of a group at once, a random one, or weighted and continuous ones."""

from geoeq.geometry.frames.eigenvectors import eigenvectors
from geoeq.geometry.frames.frames import (
    FrameGroup,
    Frames,
    axis_number,
    checked_threshold,
    fixed_frames,
    frames_gap,
    has_reflections,
    has_translations,
)
from geoeq.geometry.frames.pca import pca_frames
from geoeq.geometry.frames.scaling import Scaling, multidimensional_scaling, spread_landmarks
from geoeq.geometry.frames.signs import signed_frames
from geoeq.geometry.frames.structure_frames import Framed, Images, average, between_images, in_frames, inputs_that_turn
from geoeq.geometry.frames.vectors import needed_vectors, vector_frames
from geoeq.geometry.frames.weighted import weighted_frames

__all__ = [
    "FrameGroup",
    "Framed",
    "Frames",
    "Images",
    "Scaling",
    "average",
    "axis_number",
    "between_images",
    "checked_threshold",
    "eigenvectors",
    "fixed_frames",
    "frames_gap",
    "has_reflections",
    "has_translations",
    "in_frames",
    "inputs_that_turn",
    "multidimensional_scaling",
    "needed_vectors",
    "pca_frames",
    "signed_frames",
    "spread_landmarks",
    "vector_frames",
    "weighted_frames",
]
