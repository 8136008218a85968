"""The bundle templates: what is copied, what the data are, and that `train` really trains, twice the same."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uv

import kaos_templates
from kaos.digest import digest_bytes
from kaos.errors import AlreadyExistsError, UnknownNameError
from kaos.manifest import parse
from kaos_templates.remote import PORT, manifest, pieces, served

NAMES = [template.name for template in kaos_templates.TEMPLATES]
SPLITS = ("training", "validation", "test")
Train = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Copy every template once, as `kaos template get` would."""
    root = tmp_path_factory.mktemp("templates")
    for name in NAMES:
        kaos_templates.copy(name, root / name)
    return {name: root / name for name in NAMES}


@pytest.fixture(scope="session")
def train(bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Train]:
    """Run the `train` of a template in an environment that uv made from its requirements."""
    environments: dict[str, Path] = {}

    def environment(requirements: Path) -> Path:
        text = requirements.read_text()
        if text not in environments:
            folder = tmp_path_factory.mktemp("venv")
            command = [uv.find_uv_bin(), "venv", "--clear", "-q", "-p", sys.executable, str(folder)]
            subprocess.run(command, check=True)
            command = [uv.find_uv_bin(), "pip", "install", "-q", "-p", str(folder), "-r", str(requirements)]
            subprocess.run(command, check=True)
            environments[text] = folder / "bin"
        return environments[text]

    def run(
        name: str,
        output: Path,
        *,
        params: dict[str, Any] | None = None,
        argument: bool = False,
        killed_at: Path | None = None,
        **variables: str,
    ) -> subprocess.CompletedProcess[str]:
        model = bundles[name] / "model-train" / name / "model"
        path = f"{environment(model / 'requirements.txt')}:{os.environ['PATH']}"
        given = {"PATH": path, "KAOS_DATA": str(bundles[name] / "data"), **variables}
        if params is not None:
            file = output.with_suffix(".params.json")
            file.write_text(json.dumps(params))
            given["KAOS_PARAMS"] = str(file)
        if not argument:
            given["KAOS_OUTPUT"] = str(output)
        command = [str(model / "train"), *([str(output)] if argument else [])]
        with subprocess.Popen(
            command, env=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            while killed_at is not None and not killed_at.exists() and process.poll() is None:
                time.sleep(0.002)
            if killed_at is not None:
                process.kill()
            out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    yield run
    for folder in environments.values():
        shutil.rmtree(folder.parent)


@pytest.fixture(scope="session", params=NAMES)
def trained(
    request: pytest.FixtureRequest, train: Train, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, str]:
    """Train with nothing but the static parameters."""
    output = tmp_path_factory.mktemp("output")
    run = train(request.param, output)
    assert run.returncode == 0, run.stderr
    return request.param, output, run.stdout


def metrics(output: Path) -> dict[str, Any]:
    return json.loads((output / "metrics" / "metrics.json").read_text())  # type: ignore[no-any-return]


def content(output: Path) -> dict[str, bytes]:
    return {str(path.relative_to(output)): path.read_bytes() for path in output.rglob("*") if path.is_file()}


def rows(bundle: Path, split: str) -> list[list[str]]:
    with (bundle / "data" / "features" / split / f"{split}_mini.csv").open(newline="") as source:
        return list(csv.reader(source))


@pytest.mark.parametrize("name", NAMES)
def test_copy_has_what_the_documents_show(name: str, tmp_path: Path) -> None:
    files = kaos_templates.copy(name, tmp_path / name)
    manifests = {"mnist": ("micro", "mid"), "property-val": ()}[name]

    assert {str(path.relative_to(tmp_path / name)) for path in files} == {
        "README.md",
        f"model-train/{name}/Dockerfile",
        f"model-train/{name}/model/params.json",
        f"model-train/{name}/model/requirements.txt",
        f"model-train/{name}/model/train",
        f"model-train/{name}/model/utils.py",
        f"model-serve/{name}/Dockerfile",
        f"model-serve/{name}/test_payload.{'jpg' if name == 'mnist' else 'json'}",
        *(
            f"model-serve/{name}/model/{file}"
            for file in (
                "model.py",
                "predict.py",
                "requirements.txt",
                "serve",
                "web-requirements.txt",
                "wsgi.py",
            )
        ),
        "data/features/training/training_mini.csv",
        "data/features/validation/validation_mini.csv",
        "data/features/test/test_mini.csv",
        "hyperopt/params.json",
        *(f"data_manifest_{each}/data.mf" for each in manifests),
    }
    assert files == sorted(path for path in tmp_path.rglob("*") if path.is_file())
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in files}
    assert modes["train"] == modes["serve"] == 0o755
    assert modes["Dockerfile"] == 0o644


def test_find() -> None:
    assert kaos_templates.find("mnist").name == "mnist"
    with pytest.raises(UnknownNameError, match="Did you mean mnist"):
        kaos_templates.find("minst")
    with pytest.raises(UnknownNameError):
        kaos_templates.copy("../dag", Path("never"))


def test_copy_overwrites_only_when_forced(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("mine")
    (tmp_path / "notes.txt").write_text("mine, too")

    with pytest.raises(AlreadyExistsError, match=r"README\.md"):
        kaos_templates.copy("mnist", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "notes.txt"]

    kaos_templates.copy("mnist", tmp_path, force=True)
    assert readme.read_text() != "mine"
    assert (tmp_path / "notes.txt").read_text() == "mine, too"
    with pytest.raises(AlreadyExistsError, match="no directory"):
        kaos_templates.copy("mnist", readme, force=True)


def test_copy_from_an_archive_restores_the_executable_bit(tmp_path: Path) -> None:
    # An archive keeps no modes for importlib.resources, and a cache as pip leaves it must not be copied.
    source, core = Path(kaos_templates.__file__).parent, Path(sys.modules["kaos"].__file__ or "").parent
    with zipfile.ZipFile(tmp_path / "site.zip", "w") as archive:
        archive.write(source / "__init__.py", "kaos_templates/__init__.py")
        archive.writestr("kaos/__init__.py", "")
        archive.write(core / "errors.py", "kaos/errors.py")
        for path in (source / "bundles" / "mnist").rglob("*"):
            if path.is_file():
                archive.write(path, f"kaos_templates/{path.relative_to(source)}")
        archive.writestr("kaos_templates/bundles/mnist/model-train/mnist/model/__pycache__/utils.pyc", b"")
    code = "import pathlib, kaos_templates as t; print(t.__file__); t.copy('mnist', pathlib.Path('out'))"
    run = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": "site.zip"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert "site.zip" in run.stdout
    assert os.access(tmp_path / "out/model-train/mnist/model/train", os.X_OK)
    assert not list(tmp_path.glob("out/**/__pycache__"))


def test_every_bundle_has_the_same_utils(bundles: dict[str, Path]) -> None:
    # Bundles stand alone, so each carries a copy; a fix to one must reach them all.
    files = [path / "model-train" / name / "model/utils.py" for name, path in bundles.items()]
    assert len({file.read_text() for file in files}) == 1


@pytest.mark.parametrize("name", NAMES)
def test_hyperopt_is_a_grid_over_static_parameters(bundles: dict[str, Path], name: str) -> None:
    static = json.loads((bundles[name] / "model-train" / name / "model/params.json").read_text())
    grid = json.loads((bundles[name] / "hyperopt/params.json").read_text())
    assert set(grid) <= set(static)
    assert all(isinstance(values, list) and len(values) > 1 for values in grid.values())


@pytest.mark.parametrize("name", NAMES)
def test_the_dockerfile_keeps_to_what_every_runtime_honours(bundles: dict[str, Path], name: str) -> None:
    lines = (bundles[name] / "model-train" / name / "Dockerfile").read_text().splitlines()
    instructions = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    assert {word for word, _ in instructions} <= {"FROM", "LABEL", "ENV", "WORKDIR", "COPY", "RUN"}
    assert all(rest.startswith("pip install ") for word, rest in instructions if word == "RUN")
    # A new `train` builds the last layer only.
    assert instructions[-1] == ["COPY", ". /opt/program/"]


def test_mnist_data(bundles: dict[str, Path]) -> None:
    digits = {split: rows(bundles["mnist"], split) for split in SPLITS}
    for split, count in {"training": 140, "validation": 30, "test": 30}.items():
        assert Counter(row[0] for row in digits[split]) == {str(label): count for label in range(10)}
        assert {len(row) for row in digits[split]} == {785}
        assert all(0 <= int(pixel) <= 255 for row in digits[split] for pixel in row[1:])
        # Labels are mixed: a file that is cut off still holds all of them.
        assert len({row[0] for row in digits[split][:100]}) == 10
    assert len({tuple(row[1:]) for split in SPLITS for row in digits[split]}) == 2000


def test_mnist_manifests_pin_what_is_cut_from_the_data(bundles: dict[str, Path]) -> None:
    (micro, mid) = kaos_templates.find("mnist").remotes
    for remote, count in ((micro, 6), (mid, 2000)):
        content = (bundles["mnist"] / remote.directory / "data.mf").read_bytes()
        # Made again by tools/make_template_data.py when the data change.
        assert content == manifest("mnist", remote)
        entries = parse(content).entries
        assert len(entries) == count
        assert {entry.path.partition("/")[0] for entry in entries} == set(SPLITS)
        assert all(entry.url.startswith(f"http://127.0.0.1:{PORT}/{remote.name}/") for entry in entries)
        found = served("mnist")
        assert {digest_bytes(found[f"{remote.name}/{entry.path}"]) for entry in entries} == {
            entry.sha256 for entry in entries
        }
    assert sum(entry.size or 0 for entry in parse(manifest("mnist", mid)).entries) == sum(
        file.stat().st_size for file in (bundles["mnist"] / "data").rglob("*.csv")
    )


def lay_out(bundle: Path, kind: str, target: Path) -> Path:
    """Write the data that a manifest gives, as a job finds them."""
    (remote,) = [each for each in kaos_templates.find("mnist").remotes if each.name == kind]
    for path, data in pieces("mnist", remote):
        file = target / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return target


def test_mnist_trains_the_same_on_remote_data(
    trained: tuple[str, Path, str], train: Train, bundles: dict[str, Path], tmp_path: Path
) -> None:
    name, output, _ = trained
    if name != "mnist":
        pytest.skip("only mnist has manifests")
    data = lay_out(bundles[name], "mid", tmp_path / "mid")
    run = train(name, tmp_path / "all", KAOS_DATA=str(data))
    assert run.returncode == 0, run.stderr
    assert "training: 1400 digits from 1400 files" in run.stdout
    assert content(tmp_path / "all") == content(output)
    data = lay_out(bundles[name], "micro", tmp_path / "micro")
    run = train(name, tmp_path / "few", KAOS_DATA=str(data))
    assert run.returncode == 0, run.stderr
    assert "training: 100 digits from xaaaa.csv, xaaay.csv" in run.stdout
    assert metrics(tmp_path / "few")["accuracy_validation"] > 0.6


def test_property_val_data(bundles: dict[str, Path]) -> None:
    header, *_ = rows(bundles["property-val"], "training")
    houses = []
    for split, count in {"training": 1929, "validation": 500, "test": 500}.items():
        found, *sales = rows(bundles["property-val"], split)
        assert found == header
        assert len(sales) == count
        houses += sales
    assert len({tuple(house) for house in houses}) == len(houses)
    assert {len(house) for house in houses} == {len(header)} == {36}
    assert all(value for house in houses for value in house)
    assert all(10_000 < int(house[header.index("Sale_Price")]) < 1_000_000 for house in houses)


def test_train_is_good(trained: tuple[str, Path, str]) -> None:
    name, output, stdout = trained
    found = metrics(output)
    names = ("train", "validation", "test")
    live = {"metrics/train.jsonl"} if name == "property-val" else set()
    assert set(content(output)) == {"model/model.pkl", "metrics/metrics.json"} | live
    assert stdout.startswith(f"{name}: starting\n")
    if name == "mnist":
        assert set(found) == {f"{kind}_{name}" for kind in ("accuracy", "metrics") for name in names}
        assert found["accuracy_validation"] > 0.9
        assert found["accuracy_test"] > 0.9
        assert found["metrics_test"]["7"]["support"] == 30
    else:
        assert set(found) == {f"{kind}_{name}" for kind in ("rmse", "mae", "r2") for name in names}
        assert found["r2_validation"] > 0.85
        assert found["r2_test"] > 0.85
        assert found["mae_test"] < 20_000


def test_train_again_writes_the_same_bytes(
    trained: tuple[str, Path, str], train: Train, bundles: dict[str, Path], tmp_path: Path
) -> None:
    name, output, _ = trained
    before = content(bundles[name])
    # Another hash seed, freed memory that is not zero, the data elsewhere, the output as the argument.
    data = shutil.copytree(bundles[name] / "data" / "features", tmp_path / "data")
    variables = {"KAOS_DATA": str(data), "PYTHONHASHSEED": "42", "MALLOC_PERTURB_": "171"}
    run = train(name, tmp_path / "again", params={}, argument=True, **variables)

    assert run.returncode == 0, run.stderr
    assert content(tmp_path / "again") == content(output)
    # A run leaves no trace in the source bundle, such as __pycache__, which would be another version of it.
    assert content(bundles[name]) == before


def test_interrupted_training_goes_on_to_the_same_bytes(
    bundles: dict[str, Path], train: Train, tmp_path: Path
) -> None:
    whole, output, checkpoint = tmp_path / "whole", tmp_path / "output", tmp_path / "checkpoint"
    params = {"n_estimators": 520}  # no multiple of a stage
    assert train("property-val", whole, params=params).returncode == 0
    checkpoint.mkdir()
    saved = checkpoint / "checkpoint.pkl"
    killed = train("property-val", output, params=params, killed_at=saved, KAOS_CHECKPOINT=str(checkpoint))
    assert killed.returncode == -9
    assert not (output / "model").exists()
    shutil.rmtree(output)  # kaos gives a new try an empty directory
    again = train("property-val", output, params=params, KAOS_CHECKPOINT=str(checkpoint))
    assert re.search(r"^going on with \d+ trees of an earlier try$", again.stdout, re.MULTILINE), again.stdout
    assert content(output) == content(whole)
    lines = [json.loads(line) for line in (output / "metrics" / "train.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [*range(50, 501, 50), 520]
    assert lines[-1]["rmse_validation"] == pytest.approx(metrics(output)["rmse_validation"])
    # Of other parameters it is of no use.
    other = train("property-val", output, params={"n_estimators": 60}, KAOS_CHECKPOINT=str(checkpoint))
    assert "going on" not in other.stdout


def test_hyperparameters_change_the_model(
    trained: tuple[str, Path, str], train: Train, tmp_path: Path
) -> None:
    name, output, _ = trained
    params = {"mnist": {"kernel": "poly", "gamma": 2.0}, "property-val": {"n_estimators": 20}}[name]
    run = train(name, tmp_path / "trial", params=params)

    assert run.returncode == 0, run.stderr
    assert metrics(tmp_path / "trial") != metrics(output)


@pytest.mark.parametrize(
    ("call", "variables", "message"),
    [
        ("data_files('training')", {}, "KAOS_DATA is not set"),
        ("data_files('training')", {"KAOS_DATA": "nowhere"}, "KAOS_DATA=nowhere is no directory"),
        ("data_files('training')", {"KAOS_DATA": "."}, "there is no training/*.csv in ."),
        ("hyperparams({'gamma': 1})", {"KAOS_PARAMS": "nowhere"}, "KAOS_PARAMS=nowhere does not exist"),
        ("hyperparams({'gamma': 1})", {"KAOS_PARAMS": "typo.json"}, "unknown hyperparameter gama"),
        ("hyperparams({'gamma': 1})", {"KAOS_PARAMS": "list.json"}, "must be a JSON object"),
        ("hyperparams({'gamma': 1})", {"KAOS_PARAMS": "cut.json"}, "is no JSON"),
        ("output_directory()", {}, "nowhere to write"),
    ],
)
def test_errors_say_what_is_wrong(
    bundles: dict[str, Path], call: str, variables: dict[str, str], message: str, tmp_path: Path
) -> None:
    for name, text in {"typo.json": '{"gama": 1}', "list.json": "[1]", "cut.json": '{"gamma"'}.items():
        (tmp_path / name).write_text(text)
    utils = bundles["mnist"] / "model-train/mnist/model"
    run = subprocess.run(
        [sys.executable, "-B", "-c", f"import utils; utils.{call}"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(utils), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert message in run.stderr
    assert "Traceback" not in run.stderr
