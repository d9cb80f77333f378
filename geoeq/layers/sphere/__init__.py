"""Functions on the sphere: grids, activations, norms, feed-forward networks and sets of points."""
