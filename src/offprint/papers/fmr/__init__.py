"""Foundation model-oriented robustness: record and claims."""
