"""The protocol over gRPC: the service, and messages."""
