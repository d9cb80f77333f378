"""Heads: from node features to named outputs."""
