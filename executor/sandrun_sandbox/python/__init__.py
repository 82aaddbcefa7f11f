"""Running Python programs in a fork of a warm interpreter."""
