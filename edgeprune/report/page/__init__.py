"""A page of finished runs: one HTML file with everything in it, that asks the network for nothing."""
