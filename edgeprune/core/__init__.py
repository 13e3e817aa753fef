"""The words every room shares: types, errors, store, units, clock. Imports no torch and nothing else of ours."""
