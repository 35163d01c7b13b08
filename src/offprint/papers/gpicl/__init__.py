"""General-purpose in-context learning: record and claims."""
