"""`python -m sandrun_client` is the command `sandrun`."""

from sandrun_client.cli.main import main

main()
