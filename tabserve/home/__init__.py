"""The page that a service shows browsers at `/`, to try its model by hand; needs the extra `report`."""
