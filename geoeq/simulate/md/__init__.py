"""Molecular dynamics with exact restarts, as ``geoeq md`` runs it."""
