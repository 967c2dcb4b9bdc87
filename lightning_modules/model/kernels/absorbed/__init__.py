"""Kernels of attention over the latents themselves, with W_UK absorbed by the queries: see `latent_attention`."""
