"""Family trees of models: who descends from whom, how that is known, and how to show it."""
