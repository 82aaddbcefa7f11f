"""Reads uploads that are archives: one reader for the api's check and for the sandbox that unpacks.

Two readers that disagree would let a job run without its files, so both load these modules. They need the
standard library only, and nothing of it before an archive comes: every job's interpreter carries them.
"""
