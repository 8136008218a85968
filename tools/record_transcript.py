"""Write what `make demo` printed into README.md: python tools/record_transcript.py < OUTPUT."""

from __future__ import annotations

import re
import sys
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"
BEGIN = "<!-- transcript: written by tools/record_transcript.py from a real run; do not edit by hand -->\n"
END = "<!-- transcript end -->\n"


def main() -> None:
    """Replace the transcript; the password and the temporary directory are not for the public."""
    text = sys.stdin.read()
    text = re.sub(r"^(  password +)\S+", r"\1********", text, flags=re.MULTILINE)
    text = re.sub(r"^(  state +)\S+", r"\1~/.kaos", text, flags=re.MULTILINE)
    text = re.sub(r"/\S*kaos-demo\.\w+/", "", text)
    text = re.sub(r"^PostgreSQL does not run as root.*\n", "", text, flags=re.MULTILINE)
    head, _, rest = README.read_text().partition(BEGIN)
    tail = rest.partition(END)[2]
    README.write_text(f"{head}{BEGIN}\n```text\n{text.strip()}\n```\n\n{END}{tail}")


if __name__ == "__main__":
    main()
