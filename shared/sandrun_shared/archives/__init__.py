"""Reads uploads that are archives: one reader for the api's check and for the sandbox that unpacks.

Both load these modules, because with two readers that disagree a job could run without some of its files.
They use only the standard library and import it only when an archive comes, since every job's interpreter
carries them.
"""
