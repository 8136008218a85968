"""What `kaos serve predict` makes of what it is given; no server is needed for that."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kaos.errors import InvalidInputError
from kaos_cli.predict import predict, read_data, read_token

NOBODY = "http://127.0.0.1:9/e/invocations"


def test_text_is_sent_as_the_bytes_that_were_typed() -> None:
    typed = os.fsdecode(b"\xff\xfe")
    assert read_data(typed) == (b"\xff\xfe", "text/plain; charset=utf-8")
    assert read_data('{"a": 1}') == (b'{"a": 1}', "application/json")


@pytest.mark.parametrize(
    ("kind", "token"), [("a\nb: c", None), ("text/€", None), ("text/plain", "a\nb"), ("text/plain", "€")]
)
def test_what_no_header_can_have_is_refused_and_not_shown(kind: str, token: str | None) -> None:
    with pytest.raises(InvalidInputError) as refused:
        predict(NOBODY, b"x", kind, token)
    assert (token or kind) not in str(refused.value)


def test_a_token_must_be_text(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInputError, match="holds no token"):
        read_token(file)
