"""Slots, zygotes and sandboxes: from a free slot to the verdict of a job."""
