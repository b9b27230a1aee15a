"""What a cluster is missing, and why a release of the chart does not answer."""
