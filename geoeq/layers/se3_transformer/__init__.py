"""The SE(3)-Transformer (Fuchs et al. 2020): attention, convolution, norm and the block of all three."""
