"""Task agnostic continual learning with multiple experts: record and claims."""
