"""Operations with fused kernels as torch.library operators, with derivatives of every order."""
