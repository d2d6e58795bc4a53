"""Policies made of a network of the user's: flax, equinox, or plain functions."""
