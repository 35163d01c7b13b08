"""One byte per gradient: record and claims."""
