"""State-space models by approximate diagonalization: record and claims."""
