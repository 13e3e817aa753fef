"""What a network is for: what it is trained on, how its answers are judged, and what guessing would get."""
