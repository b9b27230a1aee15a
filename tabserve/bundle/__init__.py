"""The bundle: the folder that is released, from `save` to a verified `load`."""
