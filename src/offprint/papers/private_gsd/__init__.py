"""Private synthetic data with genetic algorithms: record and claims."""
