"""What the services answer to bad input, bad bundles, overload and failing processes."""
