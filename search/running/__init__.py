"""A run while it goes on: the coordinator, breeding, evaluation, workers, when to stop."""
