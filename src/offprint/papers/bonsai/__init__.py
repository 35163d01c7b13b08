"""Rich feature construction: record and claims."""
