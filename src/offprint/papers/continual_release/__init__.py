"""Privacy under continual observation: record and claims."""
