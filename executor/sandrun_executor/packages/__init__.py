"""Packages that a job requires: fetched through an egress proxy, installed by a job, kept as a layer."""
