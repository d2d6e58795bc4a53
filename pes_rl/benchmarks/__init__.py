"""Engines measured side by side, for `python -m pes_rl.bench`."""
