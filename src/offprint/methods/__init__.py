"""Methods: what a user applies to their own model or data, by family."""
