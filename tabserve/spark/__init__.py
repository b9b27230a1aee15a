"""Spark tables in, decisions out: `score`, and `python -m tabserve.spark`; needs the extra `spark`."""

from tabserve import extras

try:
    from tabserve.spark.scoring import score
except ModuleNotFoundError as error:
    error.msg = extras.needs(error) or error.msg
    raise

__all__ = ["score"]
