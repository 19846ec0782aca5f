"""Merging: from recipes to weights, as coefficients on the founders wherever the method allows it."""
