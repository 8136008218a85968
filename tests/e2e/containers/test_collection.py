"""Images go with the models that were made in them. This comes first: while jobs run, all images stay."""

from __future__ import annotations

import subprocess
from pathlib import Path

from lab import containers

from e2e.containers.conftest import DOCKERFILE
from e2e.harness import TRAIN, Kaos, write_data, write_source

SCRIPT = f"""{TRAIN}
(output / "model" / "model.txt").write_text("%s")
(output / "metrics" / "metrics.json").write_text("{{}}")
"""
MORE = 3_000_000


def there(image: str) -> bool:
    return subprocess.run(["podman", "image", "exists", image], check=False).returncode == 0


def test_images_go_with_models(kaos: Kaos, podman: containers.Podman, tmp_path: Path) -> None:
    foreign = f"localhost/kaos/build-train-foreign:{tmp_path.parent.name}"
    (tmp_path / "Dockerfile").write_text(f'FROM scratch\nLABEL kaos.store="{"0" * 64}"\n')
    podman.run("podman", "build", "--quiet", f"--tag={foreign}", tmp_path)
    data = write_data(tmp_path / "data")
    jobs, sources = [], []
    for number in range(2):
        source = write_source(tmp_path / f"source{number}", SCRIPT % number, dockerfile=DOCKERFILE)
        (source / "mnist" / "model" / "more").write_bytes(bytes([number]) * MORE)
        sources.append(source)
        jobs.append(kaos.info(kaos.deploy_and_wait("-s", source, "-d", data, "--runtime", "container")))
    old, new = (job["image"]["id"] for job in jobs)
    assert old != new

    # Without a policy nothing goes.
    assert _images(kaos.json("gc", "--dry-run")) == (0, 0)
    kaos.run("workspace", "retention", "--keep-last", "1")
    shown = kaos.run("gc", "--dry-run").stdout
    assert "images, would be removed |   1   | 3.0 MB" in shown  # what it takes beyond its base image
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert there(old)

    done = kaos.json("gc", "--yes")
    count, size = _images(done)
    assert (count, size // MORE, done["problems"]) == (1, 1, [])
    assert [there(image) for image in (old, new, foreign)] == [False, True, True]
    podman.run("podman", "rmi", foreign)

    # What went is built anew; the model that was kept is made again in exactly its image.
    again = kaos.deploy("-s", sources[0], "-d", data, "--runtime", "container")
    (model,) = jobs[1]["models"]
    found = kaos.json("train", "reproduce", "-m", model["model_id"])
    assert (found["verdict"], found["environment"]) == ("identical", [])
    assert there(kaos.ended(again)["image"]["id"])
    assert "STEP" in kaos.run("train", "build-logs", "-j", again).stdout


def _images(collected: dict[str, object]) -> tuple[int, int]:
    machine = collected["machine"]
    assert isinstance(machine, list)
    (found,) = [each["amount"] for each in machine if each["what"] == "images"]
    return found["objects"], found["bytes"]
