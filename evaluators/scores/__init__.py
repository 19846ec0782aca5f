"""Scores with their documents: splits, aggregates, intervals."""
