"""Jobs as the api sees them."""
