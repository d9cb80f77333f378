"""Physics known in advance, added to a network: ZBL, D3, Coulomb."""
