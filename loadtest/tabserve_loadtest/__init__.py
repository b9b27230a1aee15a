"""Load tests for servers of the Open Inference Protocol: behaviour, shape, verdict."""
