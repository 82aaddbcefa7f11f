"""Judge0's HTTP interface, as of Judge0 CE 1.13.1."""
