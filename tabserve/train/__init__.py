"""Write a bundle: one call after training."""

from tabserve.train.sampling import features
from tabserve.train.saving import save

__all__ = ["features", "save"]
