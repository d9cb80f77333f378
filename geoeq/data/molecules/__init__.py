"""Molecules: SDF files, and conformers of SMILES by RDKit."""
