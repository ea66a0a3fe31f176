"""Which worker computes which batch, and what must be equal for replicas to agree bit for bit."""
