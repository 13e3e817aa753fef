"""`bench conv`: searches side by side on convolutional networks, held to bounds on measured latency."""
