"""geoeq: geometric graph neural networks for molecules, materials and 3D point clouds."""

__version__ = "0.1.0"
