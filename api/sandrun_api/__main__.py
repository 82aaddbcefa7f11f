"""`python -m sandrun_api`: the api alone, in the foreground."""

import argparse
import sys
from pathlib import Path

from sandrun_api.edge import garbage
from sandrun_api.server import serve
from sandrun_shared import wiping
from sandrun_shared.settings import SettingsError, load


def main() -> int:
    """Read the settings and serve; 2 if they cannot be used."""
    parser = argparse.ArgumentParser(prog="sandrun_api", description="Sandrun's HTTP server")
    parser.add_argument("--config", type=Path, help="settings file (default /etc/sandrun/sandrun.toml)")
    parser.add_argument(
        "--exempt-loopback", action="store_true", help="no quotas for this machine's own requests"
    )
    arguments = parser.parse_args()
    try:
        settings = load(arguments.config)
        if settings.api.wipe_memory:
            wiping.restart()
        garbage.settle()
        serve(settings, exempt_loopback=arguments.exempt_loopback)
    except SettingsError as error:
        print(f"sandrun: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
