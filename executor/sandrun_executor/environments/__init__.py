"""Built environments, their zygotes, and the sandboxes parked for them."""
