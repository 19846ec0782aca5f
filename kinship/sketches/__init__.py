"""Sketches: a few numbers a tensor, by which relatives are found among thousands of models."""
