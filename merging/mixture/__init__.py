"""Mixtures of experts assembled from dense fine-tunes, as checkpoints that transformers loads."""
