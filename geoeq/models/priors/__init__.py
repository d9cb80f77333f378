"""Priors, known contributions to the energy that are added to a network: ZBL, D3 and Coulomb."""
