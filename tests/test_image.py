"""What the process runtime honours of a Dockerfile, and that it refuses all else by line and name."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from conftest import write_tree
from hypothesis import given
from hypothesis import strategies as st

from kaos.dockerfile import Dockerfile
from kaos.errors import InvalidBundleError, KaosError, UnsupportedImageError
from kaos.image import PATH_HOLE, PROGRAM_HOLE, EnvironmentSpec, environment
from kaos.requirements import canonical
from kaos.runtime.source import environment_of

FILES = {
    "train": b"",
    "serve": b"",
    "requirements.txt": b"six==1.16.0\n",
    "lib/util.py": b"",
    "lib/extra.txt": b"attrs\n",
}


def spec(text: str, files: dict[str, bytes] = FILES) -> EnvironmentSpec:
    return environment(Dockerfile.of(text), files)


def build(*lines: str) -> EnvironmentSpec:
    return spec("\n".join(["FROM python:3.11-slim", *lines]))


def test_a_dockerfile_is_read_with_lines_comments_and_continuations() -> None:
    text = (
        "# syntax=docker/dockerfile:1\n\nfrom python:3.11\n"
        'Run pip install \\\n  # why\n\n  six \\\n  attrs\ncmd ["a"]\n'
    )
    read = Dockerfile.of(text).instructions
    assert [(one.line, one.name, one.text) for one in read] == [
        (3, "FROM", "python:3.11"),
        (4, "RUN", "pip install six attrs"),
        (9, "CMD", '["a"]'),
    ]
    assert read[2].exec_form == ["a"]
    assert read[1].exec_form is None


@pytest.mark.parametrize("text", ["", "# nothing\n", "\n\n"])
def test_an_empty_dockerfile_is_refused(text: str) -> None:
    with pytest.raises(UnsupportedImageError, match="empty"):
        Dockerfile.of(text)


def test_another_escape_character_is_refused() -> None:
    with pytest.raises(UnsupportedImageError, match="line 1"):
        Dockerfile.of("# escape=`\nFROM python:3.11")


@pytest.mark.parametrize(
    ("image", "python"),
    [
        ("python:3.11", "3.11"),
        ("python:3.11-slim", "3.11"),
        ("python:3.11.7-slim-bookworm", "3.11.7"),
        ("docker.io/library/python:3.12-trixie AS base", "3.12"),
        ("python:3", None),
        ("python", None),
        ("python:latest", None),
        ("python:3-slim", None),
    ],
)
def test_the_base_image_says_which_python(image: str, python: str | None) -> None:
    assert spec(f"FROM {image}").python == python


@pytest.mark.parametrize(
    "image",
    [
        "ubuntu",
        "python:2.7",
        "python:3.11-alpine",
        "python:3.13-rc",
        "tensorflow/tensorflow",
        "mypython:3.11",
        "scratch",
        f"python@sha256:{'0' * 64}",
        "--platform=linux/arm64 python:3.11",
    ],
)
def test_another_base_image_is_refused(image: str) -> None:
    with pytest.raises(UnsupportedImageError, match="line 1: `FROM ") as caught:
        spec(f"FROM {image}")
    assert "`container` runtime" in caught.value.next_step


def test_the_common_shape_is_honoured() -> None:
    made = build(
        "LABEL a=b",
        "MAINTAINER me",
        "ARG UNUSED=1",
        "ENV PYTHONUNBUFFERED=TRUE \\",
        "    A='b c'",
        'ENV D="e $A"',
        "ENV OLD some words",
        'ENV PATH="/opt/program:${PATH}" PYTHONPATH=/opt/program/lib:/elsewhere',
        "WORKDIR /opt/program",
        "COPY requirements.txt .",
        "RUN pip install --no-cache-dir --upgrade -r requirements.txt && pip3 install -q 'numpy>=2' attrs",
        'RUN ["python3", "-m", "pip", "install", "rich"]',
        "COPY --chown=app . /opt/program/",
        "RUN chmod +x train /opt/program/serve",
        "USER app",
        "EXPOSE 8080",
        'ENTRYPOINT ["python"]',
        "CMD train",
    )
    assert made.requirements == "attrs\nnumpy>=2\nrich\nsix==1.16.0\n"
    assert made.env == {
        "PYTHONUNBUFFERED": "TRUE",
        "A": "b c",
        "D": "e b c",
        "OLD": "some words",
        "PATH": f"{PROGRAM_HOLE}:{PATH_HOLE}",
        "PYTHONPATH": f"{PROGRAM_HOLE}/lib:/elsewhere",
    }
    assert made.executables == ("serve", "train")


def test_requirements_may_lie_elsewhere_in_the_image() -> None:
    made = build(
        "COPY requirements.txt /tmp/", "RUN pip install -r/tmp/requirements.txt", "WORKDIR /app", "ADD . ."
    )
    assert made.requirements == "six==1.16.0\n"


def test_named_files_keep_their_places() -> None:
    made = build(
        "WORKDIR /app", "COPY train serve *.txt ./", "COPY lib lib", "RUN pip install -r lib/extra.txt"
    )
    assert made.requirements == "attrs\n"


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["RUN apt-get update"], "line 2: `RUN apt-get update`: only `pip install`"),
        (["RUN pip install six && make"], "line 2"),
        (["RUN pip install six; rm -rf /"], "`;` is for a shell"),
        (["RUN pip install $(cat x)"], "only the plain forms"),
        (["RUN pip install numpy>=1"], "in quotes"),
        (["RUN pip uninstall six"], "of pip, only `pip install`"),
        (["RUN pip install --pre six"], "--pre"),
        (["RUN pip install -c constraints.txt six"], "option -c"),
        (["RUN pip install -e ."], "option -e"),
        (["RUN pip install ."], "cannot be pinned"),
        (["RUN pip install ./lib"], "cannot be pinned"),
        (["RUN pip install 'git+https://example.org/x.git'"], "cannot be pinned"),
        (["RUN pip install 'x @ git+https://example.org/x.git'"], "cannot be pinned"),
        (["RUN pip install --find-links ./wheels six"], "only addresses"),
        (["RUN --network=none pip install six"], "--network=none"),
        (["RUN conda install six"], "only `pip install`"),
        (["RUN pipenv install"], "only `pip install`"),
        (["RUN chmod 600 train"], "chmod"),
        (["COPY . /opt/program", "RUN chmod +x nothing"], "line 3: /nothing is not in the image"),
        (["COPY --from=base /a /b"], "--from=base"),
        (["COPY <<EOF /opt/program/x"], "line 2"),
        (["ADD https://example.org/x /opt/program/"], "address"),
        (["COPY train /etc/"], "train would be at /etc/train"),
        (["COPY lib /opt/program/"], "lib would be at /opt/program"),
        (["COPY . /"], "directory of its own"),
        (["COPY . /a", "COPY . /b"], "line 3"),
        (["COPY . /opt/program", "WORKDIR /data"], "line 3: `WORKDIR /data`"),
        (["HEALTHCHECK NONE"], "line 2: `HEALTHCHECK NONE`"),
        (["VOLUME /data"], "VOLUME"),
        (['SHELL ["bash"]'], "SHELL"),
        (["ONBUILD RUN x"], "ONBUILD"),
        (["NONSENSE"], "NONSENSE"),
        (["FROM python:3.12"], "several stages"),
        (["ARG V=1", "ENV X=$V"], "build argument V"),
        (["ENV X=$UNSET"], r"\$UNSET"),
        (["ENV X=${A:-b}"], "plain forms"),
        (["ENV X='a"], "quote"),
        (["ENV KAOS_DATA=/x"], "KAOS_DATA is for kaos"),
        (["ENV PIP_INDEX_URL=https://example.org"], "where pip is called"),
    ],
)
def test_everything_else_is_refused_by_line(lines: list[str], says: str) -> None:
    with pytest.raises((UnsupportedImageError, InvalidBundleError), match=says):
        build(*lines)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["COPY . /a", "RUN pip install -r /a/missing.txt"], "line 3: the requirements file 'missing.txt'"),
        (["RUN pip install -r requirements.txt"], "line 2: /requirements.txt is not in the image yet"),
        (["COPY model /opt/program"], "line 2: COPY: 'model' is not in the bundle"),
        (["COPY ../secret /opt/program"], "line 2"),
    ],
)
def test_a_missing_file_is_named_with_its_line(lines: list[str], says: str) -> None:
    with pytest.raises(InvalidBundleError, match=says):
        build(*lines)


def requirements(text: str, **others: str) -> str:
    files = {"requirements.txt": text.encode()} | {
        f"{name}.txt": other.encode() for name, other in others.items()
    }
    return spec("FROM python:3.11\nCOPY . /a\nRUN pip install -r /a/requirements.txt", files).requirements


def test_requirements_are_brought_into_one_canonical_form() -> None:
    assert requirements(
        "\ufeff# a comment\r\nsix==1.16.0  # why\r\n-r more.txt\r\n\r\n--extra-index-url https://e.org/simple\r\n"
        "attrs \\\r\n  --hash=sha256:0\r\nsix==1.16.0\r\n",
        more="-i https://i.org/simple\nRich; python_version>'3'\nx[a,b] @ https://e.org/x-1-py3-none-any.whl\n",
    ) == (
        "--index-url https://i.org/simple\n--extra-index-url https://e.org/simple\nattrs --hash=sha256:0\n"
        "Rich; python_version>'3'\nsix==1.16.0\nx[a,b] @ https://e.org/x-1-py3-none-any.whl\n"
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("six\n-e .", "requirements.txt line 2"),
        ("./local", "line 1: './local' cannot be pinned"),
        ("file:///x.whl", "cannot be pinned"),
        ("wheels/x-1.whl", "cannot be pinned"),
        ("https://e.org/x-1.whl", "cannot be pinned"),
        ("git+ssh://git@e.org/x", "cannot be pinned"),
        ("--pre", "--pre"),
        ("-c other.txt", "-c other.txt"),
        ("--find-links wheels", "only addresses"),
        ("-r nothing.txt", "line 1: the requirements file 'nothing.txt'"),
        ("-r requirements.txt", "includes itself"),
    ],
)
def test_requirements_that_cannot_be_honoured_are_refused_by_line(text: str, says: str) -> None:
    with pytest.raises((UnsupportedImageError, InvalidBundleError), match=says):
        requirements(text)


def test_requirements_that_are_no_text_are_refused() -> None:
    with pytest.raises(InvalidBundleError, match="UTF-8"):
        spec("FROM python:3\nCOPY . /a\nRUN pip install -r /a/r.txt", {"r.txt": b"\xff\xfe"})


@given(st.permutations(["six==1.16.0", "attrs", "numpy>=2", "Rich"]))
def test_the_order_of_requirements_is_no_part_of_the_digest(lines: list[str]) -> None:
    assert (
        EnvironmentSpec(requirements=canonical(lines)).digest
        == EnvironmentSpec(requirements=canonical(sorted(lines))).digest
    )


def test_only_what_decides_on_the_packages_is_in_the_digest() -> None:
    base = EnvironmentSpec(python="3.11", requirements="six\n", platform="linux-x86_64")
    same = base.model_copy(update={"env": {"A": "b"}, "executables": ("train",)})
    assert base.digest == same.digest
    for change in ({"python": None}, {"requirements": "six==1\n"}, {"platform": "linux-aarch64"}):
        assert base.model_copy(update=change).digest != base.digest


def test_a_changed_train_keeps_the_environment() -> None:
    text = "FROM python:3.11\nCOPY . /opt/program\nRUN pip install -r /opt/program/requirements.txt"
    assert spec(text, {**FILES, "train": b"changed"}).digest == spec(text).digest


@given(st.text(st.sampled_from("aA$ {}'\"\\\n\t&;|=#[]/.-RUNENVCOPY"), max_size=60))
def test_no_text_breaks_the_reader_otherwise_than_by_a_kaos_error(text: str) -> None:
    with contextlib.suppress(KaosError):
        spec(f"FROM python:3.11\n{text}")


def test_a_bundle_on_disk_is_read(tmp_path: Path) -> None:
    source = write_tree(
        tmp_path / "mnist",
        {
            "Dockerfile": "FROM python:3.11\nCOPY . /app\nRUN pip install -r /app/requirements.txt",
            "model/requirements.txt": "six\n",
            "model/train": "#!/bin/sh\n",
        },
    )
    assert environment_of(source).requirements == "six\n"
    (source / "Dockerfile").write_bytes(b"\xff")
    with pytest.raises(InvalidBundleError, match="UTF-8"):
        environment_of(source)
    (source / "Dockerfile").unlink()
    with pytest.raises(InvalidBundleError, match="no Dockerfile in mnist"):
        environment_of(source)
