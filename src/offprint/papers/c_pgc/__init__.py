"""Universal perturbations against vision-language models: record and claims."""
