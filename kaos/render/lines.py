"""What is known of a node of the lineage, in lines that a person reads: for pictures and for tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from kaos.graph import Node
from kaos.resources import show_memory

_METRICS = 8
_PARAMS = 8
_SHOWN = 12
_PLURALS = {"hyperparams": "hyperparameters"}


def lines(node: Node) -> list[str]:
    """Return all that is known of a node; what no kind has told about is shown by its name."""
    told = _TOLD.get(node.kind)
    if told is not None:
        return [line for line in told(node.attributes) if line]
    return [
        f"{name} {value}" for name, value in node.attributes.items() if not isinstance(value, dict | list)
    ]


def one_line(node: Node) -> str:
    """Return the most telling of it: parameters and metrics of a model, who and when of a job."""
    known = node.attributes
    if node.kind == "model":
        words = [f"{name}={_number(value)}" for name, value in known.get("params", {}).items()]
        scores = [f"{name} {_number(value)}" for name, value in known.get("metrics", {}).items()]
        return "  ".join([" ".join(words), *scores[:2]]).strip() or _content(known)
    if node.kind in ("job", "revision"):
        state = known.get("state", "")
        return ", ".join(word for word in (known.get("by", ""), _moment(known, "submitted"), state) if word)
    if node.kind == "endpoint":
        revision = known.get("revision")
        return f"{known.get('state', '')}, revision {revision}" if revision else str(known.get("state", ""))
    return ", ".join(lines(node)[:2])


def plural(count: int, kind: str) -> str:
    """Return how many of a kind: ``1 model``, ``200 models``."""
    return f"{count} {kind if count == 1 else _PLURALS.get(kind, f'{kind}s')}"


def _bundle(known: dict[str, Any]) -> list[str]:
    return [f"by {known['author']}", _content(known), f"sha256 {known['digest'][:_SHOWN]}…"]


def _hyperparams(known: dict[str, Any]) -> list[str]:
    return [f"by {known['author']}", plural(known["trials"], "trial"), f"sha256 {known['digest'][:_SHOWN]}…"]


def _image(known: dict[str, Any]) -> list[str]:
    base = [f"from {each.partition(' ')[0]}" for each in known.get("base", [])]
    pins = [f"  {each.partition(' ')[2][:26]}…" for each in known.get("base", [])]
    count = known.get("packages")
    return [
        f"{known['runtime']} runtime",
        f"Python {known['python']}" if "python" in known else "",
        plural(count, "package") if count is not None else "",
        f"lock {known['lock'][:_SHOWN]}…" if "lock" in known else "",
        *(line for pair in zip(base, pins, strict=True) for line in pair),
    ]


def _job(known: dict[str, Any]) -> list[str]:
    state = known.get("state", "").removeprefix("JOB_").lower()
    took = f"{known['seconds']:.1f} s" if "seconds" in known else ""
    return [
        f"by {known['by']}" if "by" in known else "",
        known.get("submitted", ""),
        " ".join(word for word in (state, f"after {took}" if took else "") if word),
        f"{known['runtime']} runtime" if "runtime" in known else "",
        known.get("resources", ""),
        f"rerun of {known['rerun_of'][:_SHOWN]}" if "rerun_of" in known else "",
        f"made {known['reproduces']} again: {known['verdict']}" if "reproduces" in known else "",
        *_airflow(known),
    ]


def _revision(known: dict[str, Any]) -> list[str]:
    return [
        f"by {known['by']}",
        known["submitted"],
        f"ready after {known['seconds']:.1f} s" if "seconds" in known else known.get("state", ""),
        f"{known['runtime']} runtime",
        known.get("resources", ""),
        f"answered {known['sample']}" if known.get("sample") else "",
        *_airflow(known),
    ]


def _airflow(known: dict[str, Any]) -> list[str]:
    dag, run, version = known.get("dag"), known.get("run", ""), known.get("dag_version", "")
    words = [f"Airflow {known['airflow']}" if "airflow" in known else ""]
    words.append(f"kaos {known['kaos']}" if "kaos" in known else "")
    return [
        f"DAG {dag}" if dag else "",
        f"version {version[:_SHOWN]}…" if version else "",
        f"run {run[:_SHOWN]}…" if len(run) > _SHOWN else f"run {run}" if run else "",
        ", ".join(filter(None, words)),
    ]


def _model(known: dict[str, Any]) -> list[str]:
    params = [f"{name} = {_number(value)}" for name, value in known.get("params", {}).items()]
    metrics = [f"{name}  {_number(value)}" for name, value in known.get("metrics", {}).items()]
    return [
        known.get("removed", ""),
        f"imported by {known['imported_by']}" if "imported_by" in known else "",
        known.get("imported", ""),
        _content(known),
        f"sha256 {known['digest'][:_SHOWN]}…" if "digest" in known else "",
        f"trained in {known['seconds']:.1f} s" if "seconds" in known else "",
        *_few(params, _PARAMS),
        *_few(metrics, _METRICS),
        *_reproduced(known),
    ]


def _reproduced(known: dict[str, Any]) -> list[str]:
    """Return how often a model was made again, with which verdicts."""
    verdicts = Counter(value for name, value in known.items() if name.startswith("made_again_"))
    return [f"made again: {count} {verdict}" for verdict, count in verdicts.items()]


def _decision(known: dict[str, Any]) -> list[str]:
    return [
        known["condition"],
        known["reason"],
        f"by {known['by']}",
        known["at"],
        f"for {known['endpoint']}",
        f"DAG {known['dag']}",
    ]


def _tag(known: dict[str, Any]) -> list[str]:
    return [f"by {known['by']}", known["at"], known.get("why", "")]


def _endpoint(known: dict[str, Any]) -> list[str]:
    revision = known.get("revision")
    return [
        known["state"] + (f", revision {revision}" if revision else ""),
        f"canary {known['canary']}" if "canary" in known else "",
        f"by {known['by']}",
        known["created"],
    ]


def _content(known: dict[str, Any]) -> str:
    size = known.get("size")
    words = [plural(known["files"], "file")] if "files" in known else []
    return ", ".join([*words, *([show_memory(size)] if size is not None else [])])


def _few(told: list[str], most: int) -> list[str]:
    return told if len(told) <= most else [*told[: most - 1], f"and {len(told) - most + 1} more"]


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _moment(known: dict[str, Any], name: str) -> str:
    return str(known.get(name, "")).removesuffix(" UTC")[:16]


_TOLD: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    "source": _bundle,
    "data": _bundle,
    "manifest": _bundle,
    "hyperparams": _hyperparams,
    "image": _image,
    "job": _job,
    "model": _model,
    "tag": _tag,
    "decision": _decision,
    "revision": _revision,
    "endpoint": _endpoint,
}
