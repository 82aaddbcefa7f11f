"""GPUs that jobs may have."""
