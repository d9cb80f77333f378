"""Molecules through RDKit: SDF files, and conformers from SMILES."""
