"""Clients written by others, against both services."""
