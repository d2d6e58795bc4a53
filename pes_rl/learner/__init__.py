"""The training step and the evaluation: the numerics of a run."""
