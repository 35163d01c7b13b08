"""Domain counterfactuals: record and claims."""
