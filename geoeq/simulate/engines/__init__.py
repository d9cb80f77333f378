"""Potentials in other engines: export with torch.export, LAMMPS, TorchSim and metatomic."""
