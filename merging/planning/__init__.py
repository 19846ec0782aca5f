"""From a recipe and headers to a checked plan: which tensor becomes what, with config, vocabulary and chat template."""
