"""`python -m edgeprune` is `edgeprune`."""

from edgeprune.cli.main import main

main()
