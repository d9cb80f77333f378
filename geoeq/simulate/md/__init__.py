"""Molecular dynamics with bit-exact restarts, as ``geoeq md`` runs it."""
