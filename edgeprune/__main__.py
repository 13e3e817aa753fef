"""`python -m edgeprune` is `edgeprune`."""

from edgeprune.cli.start import main

main()
