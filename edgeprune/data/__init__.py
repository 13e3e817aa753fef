"""Data sets as numpy arrays: known names, image folders, .npz files and the user's own function. No torch here."""
