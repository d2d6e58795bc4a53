"""Trained policies in the formats of other programs, and as models to share."""
