"""Learning from aggregate responses: record and claims."""
