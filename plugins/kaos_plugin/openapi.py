"""Print the OpenAPI document of the HTTP API: `python -m kaos_plugin.openapi > docs/openapi.json`."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout


def document() -> str:
    """Return the document as it is committed: indented, keys sorted, with a line break at its end."""
    from kaos_plugin.app import create_app

    return json.dumps(create_app().openapi(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    with redirect_stdout(sys.stderr):  # where Airflow logs while it is imported
        text = document()
    sys.stdout.write(text)
