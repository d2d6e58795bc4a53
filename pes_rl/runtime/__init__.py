"""How a command runs: options, exit status, progress, several processes."""
