"""Kernels for the CPU, compiled by LLVM for the tensor product at hand."""
