"""Servers to compare with, each a script that runs in a separate environment."""
