"""Tests of the chart that need Helm and no cluster."""
