"""The rollout engine spread over Ray workers."""
