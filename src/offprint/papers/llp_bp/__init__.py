"""Label proportions by belief propagation: record and claims."""
