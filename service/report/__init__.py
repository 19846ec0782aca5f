"""The report of one run, or of several side by side: a single HTML file that needs nothing else."""
