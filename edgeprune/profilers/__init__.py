"""What is measured and how: the probe that runs on the board, the living and the fresh process, statistics, cache."""
