"""What can be removed from a network, what is best removed, and its removal."""
