"""The scenarios, one per file: each a function from the bench to what it measured."""
