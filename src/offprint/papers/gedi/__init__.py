"""Self-supervised clustering and energy-based models: record and claims."""
