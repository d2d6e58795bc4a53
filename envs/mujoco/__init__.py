"""Gymnasium's MuJoCo tasks, stepped natively in batches."""
