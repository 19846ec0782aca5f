"""For third parties: the checks that every evaluator and every pool of workers passes."""
