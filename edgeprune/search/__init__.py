"""The search: an agent is given groups and an evaluate function. It never sees a model or a board."""
