"""The smol family: specialists of a real language model, SmolLM2-135M-Instruct, in rules of English grammar."""
