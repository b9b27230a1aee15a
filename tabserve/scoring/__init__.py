"""Records in, decisions out, in process; needs the extra `batch`."""

from tabserve.scoring.scorer import ERRORS, Scored, Scorer

__all__ = ["ERRORS", "Scored", "Scorer"]
