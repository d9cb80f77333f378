"""Wrappers of a model: forces, ensembles, uncertainty, soft equivariance."""
