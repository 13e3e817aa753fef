"""The job as a line of stages: prepare, search, fine-tune, export, validate."""
