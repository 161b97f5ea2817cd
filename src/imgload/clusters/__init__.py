"""Which nodes a cluster has, and which engine runs them."""
