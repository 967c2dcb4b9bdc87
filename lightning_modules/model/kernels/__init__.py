"""Triton kernels of the decoder, for GPUs alone; each is held against the torch it stands for."""
