"""Records in, decisions out, in process; needs pyarrow (`pip install tabserve[batch]`)."""

from tabserve.scoring.scorer import ERRORS, Scored, Scorer

__all__ = ["ERRORS", "Scored", "Scorer"]
