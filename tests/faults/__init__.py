"""Bad input, bad bundles, overload and failing processes: what the services answer."""
