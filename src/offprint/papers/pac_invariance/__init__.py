"""PAC generalization via invariant representations: record and claims."""
