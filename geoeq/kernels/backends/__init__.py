"""The backends: plain PyTorch (reference), torch-scatter, cuEquivariance, and fused kernels."""
