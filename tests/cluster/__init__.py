"""Tests that need a Kubernetes cluster with KServe, and the testbed that is one."""
