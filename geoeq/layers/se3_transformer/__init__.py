"""The SE(3)-Transformer (Fuchs et al. 2020)."""
