"""Attribution by minimal subsets: record and claims."""
