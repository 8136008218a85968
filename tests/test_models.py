"""Models by id and by tag."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaos.bundle import File, Tree
from kaos.catalog import Catalog
from kaos.digest import digest_bytes
from kaos.errors import InvalidNameError, UnknownNameError
from kaos.models import Models
from kaos.store import memory_store


def models() -> Models:
    return Models(Catalog(memory_store()).create_workspace("mnist", "ada"))


def add(found: Models, name: str) -> str:
    content = name.encode()
    return found.add_import(
        name, Tree.of([File("weights", len(content), digest_bytes(content))]), "ada"
    ).model_id


def test_a_tag_stands_for_its_model_and_keeps_its_moves() -> None:
    found = models()
    one, two = add(found, "one"), add(found, "two")
    found.move_tag("production", one, "ada", "the first")
    assert found.pin("production") == found.pin(one)
    again = found.move_tag("production", one, "bob")
    assert (again.by, again.why) == ("ada", "the first")  # it moved nowhere
    found.move_tag("candidate", two, "bob")
    found.move_tag("production", "candidate", "bob")
    assert found.pin("production").model_id == two
    assert [move.name for move in found.tags()] == ["candidate", "production"]
    found.move_tag("production", None, "ada")
    assert [move.model_id for move in found.tag_moves("production")] == [None, two, one]
    assert [move.name for move in found.tags()] == ["candidate"]
    with pytest.raises(UnknownNameError, match="production"):
        found.pin("production")
    with pytest.raises(UnknownNameError):
        found.move_tag("production", None, "ada")
    with pytest.raises(UnknownNameError):
        found.tag_moves("staging")


def test_what_is_no_model_gets_no_tag() -> None:
    found = models()
    one = add(found, "one")
    for name in ("nothing", "a_b:c", "../one", "", "one"):
        with pytest.raises(UnknownNameError):
            found.move_tag("production", name, "ada")
    for tag in (one, "Production", "", "a/b", "-a"):
        with pytest.raises(InvalidNameError):
            found.move_tag(tag, one, "ada")
    assert found.tags() == []


def test_models_are_listed_the_newest_first() -> None:
    found = models()
    ids = [add(found, name) for name in ("b", "a", "c")]
    assert [each.model_id for each in found.newest()] == ids[::-1]
    assert {each.job_id for each in found.newest()} == {None}


@given(st.lists(st.sampled_from(["one", "two", None]), max_size=12))
def test_the_moves_of_a_tag_are_those_that_changed_it(steps: list[str | None]) -> None:
    found = models()
    ids = {name: add(found, name) for name in ("one", "two")}
    changed: list[str | None] = []
    for step in steps:
        model_id = ids[step] if step is not None else None
        if step is None and (not changed or changed[-1] is None):
            with pytest.raises(UnknownNameError):
                found.move_tag("t", None, "ada")
            continue
        found.move_tag("t", model_id, "ada")
        if not changed or changed[-1] != model_id:
            changed.append(model_id)
    assert [move.model_id for move in found.tag_moves("t")][::-1] == changed if changed else not found.tags()


def test_moves_at_the_same_time_are_all_recorded() -> None:
    found = models()
    ids = [add(found, f"m{number}") for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda model_id: found.move_tag("production", model_id, "ada"), ids))
    moves = found.tag_moves("production")
    assert sorted(move.model_id or "" for move in moves) == sorted(ids)
    assert found.pin("production").model_id == moves[0].model_id
