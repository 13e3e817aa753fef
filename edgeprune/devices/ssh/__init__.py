"""Boards over ssh: OpenSSH carries the probe, `keeper` runs on the board."""
