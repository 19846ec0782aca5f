"""lm-eval's tasks on any of its models, asked again and again at little more than the price of the forward passes."""
