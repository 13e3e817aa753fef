"""What goes into an application: the model with all that is needed to use it."""
