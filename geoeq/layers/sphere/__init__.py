"""Functions on the sphere: grids, activations, norms and feed-forward networks."""
