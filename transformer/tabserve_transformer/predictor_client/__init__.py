"""The predictor's client: addresses, connections, retries, and the bytes that are exchanged."""
