"""Comparison of geoeq's networks with the numbers of their authors' code."""
