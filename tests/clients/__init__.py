"""Other projects' clients, used with both services."""
