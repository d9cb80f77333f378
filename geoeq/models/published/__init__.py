"""Conversion of authors' hyperparameters and parameters to those of geoeq, one file per network."""
