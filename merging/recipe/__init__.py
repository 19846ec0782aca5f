"""What people write: the recipe schema, its parameters and its tokenizer settings."""
