"""What every record, method and claim must satisfy. Each check returns its findings; no findings means it holds."""
