"""Domain-specific risk minimization: record and claims."""
