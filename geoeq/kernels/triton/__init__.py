"""Fused kernels for NVIDIA GPUs, generated in Triton's language."""
