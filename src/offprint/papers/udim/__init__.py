"""Unknown domain inconsistency minimization: record and claims."""
