"""Tests that need a Kubernetes cluster with KServe, and a testbed that provides one."""
