"""Load tests of a server of the Open Inference Protocol: behaviour, shape, verdict."""
