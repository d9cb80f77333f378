"""Linear maps, gates, norms and dropout on features with irreps."""
