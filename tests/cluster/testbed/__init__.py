"""A real single-node Kubernetes cluster with KServe, without Docker and without a registry.

Start reading at `table.py`: it lists what runs, in the order of starting.
"""
