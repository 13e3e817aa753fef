"""The two papers reproduced, and what is measured beside them: benches, the steps of Shapley pruning, their tables."""
