"""A training run: its loop, what it records, and how it is started."""
