"""Write docs/openapi.json, the contract, from the routes of the application.

python docs/generate_openapi.py
"""

import json
from pathlib import Path

from sandrun_api.app import create_app
from sandrun_shared.settings import Settings

TARGET = Path(__file__).with_name("openapi.json")


def render() -> str:
    """The document as a file, the same on every machine."""
    return json.dumps(create_app(Settings()).openapi(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    TARGET.write_text(render())
