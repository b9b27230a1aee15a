"""Tests, grouped by need: unit (nothing), contract, faults and clients (processes and sockets), chart, cluster."""
