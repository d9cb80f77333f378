"""Export of potentials, and the engines that run them: LAMMPS, TorchSim, metatomic."""
