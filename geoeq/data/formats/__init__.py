"""Readers of the file formats of energies and forces."""
