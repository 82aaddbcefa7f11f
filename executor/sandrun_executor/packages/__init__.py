"""Packages that a job asks for: installed as a job, kept as a layer, fetched through an egress proxy."""
