"""Strategies: pure state machines that propose matings and take scores."""
