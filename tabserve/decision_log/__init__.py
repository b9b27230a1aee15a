"""Decisions that last: what is recorded of each, in which form, and where."""
