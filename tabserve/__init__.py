"""Serve tabular models over the Open Inference Protocol on Kubernetes."""

__version__ = "0.2.0"
