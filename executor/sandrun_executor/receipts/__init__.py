"""What root states and signs about a job."""
