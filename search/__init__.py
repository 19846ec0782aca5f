"""Evolutionary merge search: from scores and kinship to the next generation."""
