"""Permutation alignment of differently initialised networks (Ainsworth et al., arXiv 2209.04836)."""
