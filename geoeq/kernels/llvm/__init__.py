"""Fused kernels for the CPU: generated as LLVM assembly and compiled in memory."""
