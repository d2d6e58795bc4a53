"""Environments in closed form, written in JAX."""
