"""Measures of kinship: passes over weights, the tables they give, and the registry of metrics read from those."""
