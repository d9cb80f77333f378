"""Fused tensor products for NVIDIA GPUs, in the language Triton."""
