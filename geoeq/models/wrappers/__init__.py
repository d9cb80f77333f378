"""Wrappers of models: forces, Hessians, ensembles, uncertainty and soft equivariance."""
