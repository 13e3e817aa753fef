"""A device that is made up as its file says."""
