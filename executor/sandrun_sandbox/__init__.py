"""Code that becomes the sandbox: standard library only, CPython 3.9 or newer, loaded from source text."""
