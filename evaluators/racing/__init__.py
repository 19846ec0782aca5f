"""Which candidates to score no further, and how little scoring tells enough."""
