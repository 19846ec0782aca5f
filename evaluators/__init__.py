"""Evaluation: from weights to scores that can be trusted."""
