"""What the estimators share: their protocol, perturbations, chunks and reports."""
