"""Engines evaluate a model on arrays. There is one module per engine; its library is imported only when it is used."""

from tabserve.engines.engine import Engine
from tabserve.engines.preprocessor import load_preprocessor
from tabserve.engines.selection import EngineSet, load, load_native, open_engine

__all__ = ["Engine", "EngineSet", "load", "load_native", "load_preprocessor", "open_engine"]
