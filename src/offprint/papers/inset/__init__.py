"""Neural subset selection with background information: record and claims."""
