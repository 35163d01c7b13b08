"""Online prototype learning: record and claims."""
