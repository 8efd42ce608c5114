"""Sparse autoencoders on Gemma 2, trained under one JAX mesh."""
