"""Gymnasium environments, and the ways to step many of them at once."""
