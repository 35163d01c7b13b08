"""Learning to relax: record and claims."""
