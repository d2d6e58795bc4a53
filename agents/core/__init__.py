"""Modules that several estimators share: protocol, perturbations, chunks, reports."""
