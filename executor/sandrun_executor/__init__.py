"""The root daemon that runs jobs in sandboxes."""
