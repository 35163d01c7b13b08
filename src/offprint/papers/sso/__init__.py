"""Target-based surrogates for stochastic optimization: record and claims."""
