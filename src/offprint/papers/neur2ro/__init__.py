"""Neural two-stage robust optimization: record and claims."""
