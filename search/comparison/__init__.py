"""Merge methods compared as Tam et al. (arXiv 2409.18314) do: what they hold, what they gain, what they cost."""
