"""The command `sandrun`."""
