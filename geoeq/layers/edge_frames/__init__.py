"""Layers that work in a frame aligned with each edge, where SO(3) becomes SO(2)."""
