"""Logins to a real registry by Airflow connections; of Amazon only the call that gives a password is ours."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from airflow.providers.amazon.aws.hooks.ecr import EcrCredentials, EcrHook
from conftest import write_tree
from e2e.harness import free_port
from lab import containers
from test_images import Memory

from kaos.digest import digest_bytes
from kaos.errors import ContainerEngineError
from kaos.runtime.container.builders import builder_named
from kaos.runtime.container.engine import Podman
from kaos.runtime.container.images import Images, ImageSpec
from kaos_operators import containers as configured

FIRST = "AWS:$2y$04$5r12ATPrjPqtlDjA0erDX.WdfbhjZ1JzP5B.Q8qUHwzL0lFunvUiC\n"
"""As `htpasswd -nbB AWS first-one` writes it."""

RENEWED = "AWS:$2y$04$omN2N3zRCMpc6Y0ZkyUCR.us0AlRD1PEKRv1Ss0fwRtu.RhT6UkIa\n"
"""As `htpasswd -nbB AWS renewed` writes it."""


@pytest.fixture
def option(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    monkeypatch.setenv("AIRFLOW__KAOS__REGISTRY_CONN_ID", "images")
    return monkeypatch


def spec(name: str, tmp_path: Path) -> ImageSpec:
    def lay_out(context: Path) -> None:
        write_tree(context, {"train": f"#!/bin/sh\n# {tmp_path} {name}\n"})

    dockerfile = "FROM python:3.11-slim\nCOPY . /opt/program/\n"
    return ImageSpec(name, digest_bytes(f"{tmp_path} {name}".encode()), dockerfile, lay_out)


@pytest.fixture
def registry(podman: containers.Podman, tmp_path: Path) -> Iterator[str]:
    (tmp_path / "htpasswd").write_text(FIRST)
    with containers.registry(tmp_path, free_port()) as host:
        yield f"{host}/kaos"


@pytest.mark.container
def test_a_password_of_ecr_is_asked_for_anew_each_time(
    registry: str, option: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    option.setenv("AIRFLOW__KAOS__REGISTRY", registry)
    option.setenv("AIRFLOW_CONN_IMAGES", '{"conn_type": "aws", "extra": {"region_name": "eu-central-1"}}')
    passwords = iter(["first-one", "renewed", "first-one"])

    def credentials(hook: EcrHook, registry_ids: object = None) -> list[EcrCredentials]:
        assert hook.aws_conn_id == "images"
        end = datetime(2026, 1, 1, tzinfo=UTC)
        return [
            EcrCredentials(
                username="AWS", password=next(passwords), proxy_endpoint="https://aws", expires_at=end
            )
        ]

    option.setattr(EcrHook, "get_temporary_credentials", credentials)
    images = Images(Podman(), builder_named("podman"), tmp_path, registry=configured.registry())
    first, _ = images.build(spec("first", tmp_path), print, Memory())
    assert first.pinned.startswith(f"{registry}@sha256:")
    (tmp_path / "htpasswd").write_text(RENEWED)
    second, _ = images.build(spec("second", tmp_path), print, Memory())
    assert second.pinned.startswith(f"{registry}@sha256:")
    with pytest.raises(ContainerEngineError, match="podman push"):
        images.build(spec("third", tmp_path), print, Memory())


def test_a_connection_has_login_and_password(option: pytest.MonkeyPatch) -> None:
    assert configured.registry() is None
    option.setenv("AIRFLOW__KAOS__REGISTRY", "registry.example.com/team/kaos")
    option.setenv("AIRFLOW_CONN_IMAGES", '{"conn_type": "docker", "login": "me", "password": "my-secret"}')
    found = configured.registry()
    assert found is not None
    login = found.login()
    assert login is not None
    assert (login.registry, login.username, login.password) == ("registry.example.com", "me", "my-secret")
    option.setenv("AIRFLOW_CONN_IMAGES", '{"conn_type": "docker", "login": "me"}')
    with pytest.raises(ContainerEngineError, match="no login and password"):
        found.login()
    option.setenv("AIRFLOW__KAOS__REGISTRY", "team/kaos")
    with pytest.raises(ContainerEngineError, match="names no host"):
        configured.registry()


def test_without_a_connection_the_engine_has_its_own_logins(option: pytest.MonkeyPatch) -> None:
    option.setenv("AIRFLOW__KAOS__REGISTRY", "registry.example.com/team/kaos")
    option.delenv("AIRFLOW__KAOS__REGISTRY_CONN_ID")
    found = configured.registry()
    assert found is not None
    assert found.login() is None
