"""Continuous-control policies trained by Persistent Evolution Strategies."""

__version__ = "0.1.0"
