"""The rollout engine: particles in, K steps, particles and a segment out."""
