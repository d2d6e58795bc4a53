"""Gymnasium's MuJoCo tasks, stepped in batches by MuJoCo's own thread pool."""
