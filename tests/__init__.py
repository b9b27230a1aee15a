"""Tests by what they need: unit (nothing), contract, faults and clients (processes and sockets), chart, cluster."""
