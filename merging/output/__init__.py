"""Model folders: written whole or not at all, and verified."""
