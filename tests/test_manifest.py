from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaos.bundle import File, Tree
from kaos.errors import InvalidInputError, InvalidManifestError, KaosError
from kaos.manifest import parse

SHA = "a" * 64


def line(**fields: Any) -> str:
    return json.dumps({"url": "https://example.org/a.csv", "path": "training/a.csv"} | fields)


def problem(text: str | bytes) -> str:
    with pytest.raises(InvalidManifestError) as caught:
        parse(text.encode() if isinstance(text, str) else text)
    return caught.value.message


def test_a_manifest_as_in_the_reference() -> None:
    manifest = parse(
        b'\xef\xbb\xbf{"url": "https://example.org/xaaa.csv", "path": "test/xaaa.csv"}\r\n'
        b"\n"
        b'{"path": "training/b", "url": "s3://bucket/b c", "size": 3, "sha256": "' + b"AB" * 32 + b'"}'
    )
    first, second = manifest.entries
    assert (first.line, first.path, first.sha256, first.size) == (1, "test/xaaa.csv", None, None)
    assert (second.line, second.url, second.sha256, second.size) == (3, "s3://bucket/b c", "ab" * 32, 3)
    assert manifest.size is None


def test_identity_is_what_it_says_and_not_how() -> None:
    one = parse((line() + "\n" + line(path="b", size=3) + "\n").encode())
    two = parse(("\n" + line(path="b", size=3).replace(", ", " ,  ") + "\r\n\n" + line()).encode())
    assert one.digest == two.digest
    assert one.encoded == two.encoded
    assert parse((line() + "\n" + line(path="b", size=4)).encode()).digest != one.digest
    assert one.encoded.decode().splitlines()[0] == ('{"path":"b","size":3,"url":"https://example.org/a.csv"}')


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("nope", "not valid JSON: Expecting value at column 1"),
        ("[" * 100_000, "not valid JSON"),
        ("[1]", "it is no object"),
        ('{"url":"http://a/","url":"http://b/","path":"x"}', "a field comes twice"),
        (line(sha="x"), "unknown field 'sha'"),
        ('{"url": "http://a/"}', 'the field "path" is missing'),
        ('{"path": "a"}', 'the field "url" is missing'),
        (line(url=""), "url is empty"),
        (line(url=1), "url is no text"),
        (line(path=""), "path is empty"),
        (line(path="/etc/passwd"), "'/etc/passwd' is absolute"),
        (line(path="a/../b"), "has '..' in it"),
        (line(path="a//b"), "has an empty or '.' component"),
        (line(path="./b"), "has an empty or '.' component"),
        (line(path="a\0b"), "has a NUL character"),
        (line(path="é" * 128), "more than 255 bytes"),
        ('{"url": "http://a/", "path": "\\ud800"}', "half a surrogate"),
        (line(url="ftp://a/b"), "does not begin with http://, https:// or s3://"),
        (line(url="http:/a/b"), "does not begin with http://"),
        (line(url="file:///etc/passwd"), "a file:// URL is not allowed"),
        (line(url="FILE:///etc/passwd"), "a file:// URL is not allowed"),
        (line(url="http:///a"), "names no host"),
        (line(url="http://a:x/"), "is not valid"),
        (line(url="http://u:p@a/"), "a user name or password"),
        (line(url="http://a/\r\nHost: b"), "control character"),
        (line(url="s3://B/key"), "'B' is no name of a bucket"),
        (line(url="s3://bucket"), "cannot be addressed"),
        (line(url="s3://bucket/a/../b"), "cannot be addressed"),
        (line(url="s3://bucket/a\nb"), "has a control character in it"),
        (line(url=f"http://{'é' * 80}.org/"), "is not valid"),
        (line(sha256="abc"), "sha256 is not 64 hexadecimal digits"),
        (line(sha256=None), "sha256 is not 64 hexadecimal digits"),
        (line(size=-1), "size is no number of bytes"),
        (line(size=True), "size is no number of bytes"),
        (line(size=1.0), "size is no number of bytes"),
        (b"\xff\xfe", "it is not UTF-8"),
        ("", "the manifest names no file"),
    ],
)
def test_bad_lines_are_named(text: str | bytes, why: str) -> None:
    assert why in problem(text)


def test_all_bad_lines_at_once() -> None:
    said = problem("\n".join([line(), "nope", "", line(path="/x"), line(path="training")]))
    assert [row.split(":")[0].strip() for row in said.splitlines()[1:]] == ["line 1", "line 2", "line 4"]
    assert "'training' is the directory of 'training/a.csv' here, and a file in line 5" in said
    many = problem("\n".join(["nope"] * 10_000))
    assert len(many.splitlines()) == 22
    assert many.endswith("and 9980 more")
    assert "'training/a.csv' is that of line 1 too" in problem(line() + "\n" + line())


def test_error_has_its_code() -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse(b"x")
    assert (caught.value.code, caught.value.status, caught.value.exit_code) == ("invalid_manifest", 422, 2)


names = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=8
).filter(lambda name: name not in (".", ".."))
paths = st.lists(names, min_size=1, max_size=3).map("/".join)
rows = st.fixed_dictionaries(
    {"url": st.sampled_from(["https://example.org/é a?b=c#d", "s3://bucket/k", "http://[::1]:80/x"])},
    optional={"size": st.integers(0, 1 << 40), "sha256": st.just(SHA)},
)


@given(st.dictionaries(paths, rows, min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_what_a_tree_can_hold_a_manifest_can_name(found: dict[str, Any], order: random.Random) -> None:
    lines = [json.dumps({"path": path, **row}) for path, row in found.items()]
    try:
        Tree.of(File(path, 0, SHA) for path in found)
    except KaosError:
        with pytest.raises(InvalidManifestError, match="is the directory of"):
            parse("\n".join(lines).encode())
        return
    manifest = parse("\n".join(lines).encode())
    assert [entry.path for entry in manifest.entries] == list(found)
    order.shuffle(lines)
    assert parse("\n\n".join(lines).encode()).digest == manifest.digest
    assert parse(manifest.encoded).encoded == manifest.encoded


@given(st.one_of(st.binary(max_size=80), st.lists(st.dictionaries(st.sampled_from(["url", "path", "size"]),
    st.one_of(st.text(), st.integers(), st.none())), max_size=3).map(
        lambda rows: "\n".join(map(json.dumps, rows)).encode())))  # fmt: skip
def test_nothing_else_than_its_own_error_comes_of_any_bytes(content: bytes) -> None:
    try:
        manifest = parse(content)
    except InvalidManifestError:
        return
    Tree.of(File(entry.path, 0, SHA) for entry in manifest.entries)


def test_tens_of_thousands_of_lines() -> None:
    content = "\n".join(line(path=f"d{n % 100}/f{n}") for n in range(50_000)).encode()
    assert len(parse(content).entries) == 50_000
