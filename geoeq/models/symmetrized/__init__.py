"""Symmetry for any network: frame averaging, canonicalization and group averaging."""
