"""Ask a transformer for decisions on records, columns of numpy arrays, or DataFrames (docs/python.md)."""

from tabserve.client.asynchronous import AsyncClient
from tabserve.client.client import Client, Sifted
from tabserve.client.errors import ServiceError

__all__ = ["AsyncClient", "Client", "ServiceError", "Sifted"]
