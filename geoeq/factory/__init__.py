"""Data factory: structures from SMILES, files or surfaces, sampled and labelled, as a data set for training."""

from geoeq.factory.make import make_set
from geoeq.factory.set_folder import Sources
from geoeq.factory.settings import MD, Modes, Rattle, Settings

__all__ = ["MD", "Modes", "Rattle", "Settings", "Sources", "make_set"]
