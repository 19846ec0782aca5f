"""Pages and pictures of answers."""
