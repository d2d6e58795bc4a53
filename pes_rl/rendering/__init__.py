"""Pictures of an environment that a policy acts in."""
