"""The docs as a site: pages from all over the repository, with their links, built by Zensical (`make docs`)."""
