"""Offspring as coefficients on their founders: the span, the basis that grows beyond it, and their weights."""
