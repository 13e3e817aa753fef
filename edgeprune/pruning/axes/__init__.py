"""Which channels hang together: axes of tensors are labelled while the network runs, operation by operation."""
