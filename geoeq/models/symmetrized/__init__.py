"""Symmetry for any network: frame averaging, canonicalization, group averaging."""
