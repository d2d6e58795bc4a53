"""Several runs: studies that compare agents, and sweeps that search settings."""
