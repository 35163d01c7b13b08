"""AutoNumerics-Zero: record and claims."""
