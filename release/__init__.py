"""Make a release: wheel, chart and images, what is in them, their checksums, and where they come from."""
