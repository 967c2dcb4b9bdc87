"""Rows of tokens continued together: one token a row and step, from a latent cache."""
