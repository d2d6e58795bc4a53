"""Settings of a training run, and their defaults for each task."""
