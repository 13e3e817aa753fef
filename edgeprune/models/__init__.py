"""The networks: the zoo's and the user's own, and the weights that go into them."""
