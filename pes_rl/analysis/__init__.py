"""Studies of the estimators and of the problems, rather than of trained policies."""
