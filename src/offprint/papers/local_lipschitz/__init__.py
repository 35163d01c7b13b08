"""Local Lipschitz constants by bound propagation: record and claims."""
