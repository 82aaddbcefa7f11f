"""Who may send how much: quotas and rates for each address, the memory budget, the shared threads."""
