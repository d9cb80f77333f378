"""The backends: plain PyTorch, torch-scatter, cuEquivariance, fused kernels."""
