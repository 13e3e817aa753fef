"""The files of a run, field by field: who writes one makes its record, who reads one gets it. No torch."""
