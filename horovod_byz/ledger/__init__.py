"""Evidence per worker: the verdicts of a run, added up."""
