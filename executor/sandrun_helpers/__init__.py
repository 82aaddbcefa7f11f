"""Processes without privileges that serve root: the package proxy, the GPU probe, the installer."""
