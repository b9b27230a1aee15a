"""A model's card: what a bundle holds, how good its answers were, and what proves that."""
