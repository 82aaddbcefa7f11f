"""The code that becomes the sandbox: standard library only, any CPython from 3.9, loaded from source text."""
