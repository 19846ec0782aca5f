"""For third parties: the checks that every strategy passes."""
