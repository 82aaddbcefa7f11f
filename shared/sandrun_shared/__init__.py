"""What the api and the executor agree on."""
