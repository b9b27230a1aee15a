"""Engines: what evaluates a model on arrays. One module per engine; its library is imported only when it is used."""

from tabserve.engines.engine import Array, Engine, Features, concatenate, rows, take
from tabserve.engines.selection import EngineSet, load

__all__ = ["Array", "Engine", "EngineSet", "Features", "concatenate", "load", "rows", "take"]
