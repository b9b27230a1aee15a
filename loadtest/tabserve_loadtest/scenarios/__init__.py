"""The scenarios, one per file; each is a function from the bench to its measurements."""
