"""A run's conclusion and evidence for a person and for a machine: terminal, JSON, page, live."""
