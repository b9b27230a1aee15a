"""Servers to compare with, each a script that runs in an environment of its own."""
