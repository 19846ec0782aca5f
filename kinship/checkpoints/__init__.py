"""Checkpoints: from what people write to tensors that are read lazily, whatever files they lie in."""
