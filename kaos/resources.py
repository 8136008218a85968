"""What a job may use (``--cpu``, ``--memory``, ``--gpu``) and what a machine has: two frozen values."""

from __future__ import annotations

import math
import re
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from kaos.errors import InvalidResourceError
from kaos.value import Value

_FACTORS: Final = {
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}
_MEMORY: Final = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)(k|M|G|T|Ki|Mi|Gi|Ti)", re.ASCII)
_NUMBER: Final = re.compile(r"\d{1,9}(?:\.\d{1,9})?", re.ASCII)
_COUNT: Final = re.compile(r"\d{1,6}", re.ASCII)

CPU_RULE: Final = "Give the number of cores as a positive number, such as 0.5 or 2."
MEMORY_RULE: Final = (
    "Give a positive number with one of the suffixes k, M, G, T, Ki, Mi, Gi, Ti, such as 512Mi or 2G."
)
GPU_RULE: Final = "Give the number of GPUs as a whole number, such as 1."


class Capacity(Value):
    """Say what a machine can give to its jobs: cores, bytes of memory, number of GPUs."""

    cpu: float
    memory: int
    gpu: int = 0

    def show(self) -> str:
        """Return it for people: ``2 cores, 23.5Gi of memory and no GPU``."""
        return f"{_cores(self.cpu)}, {show_memory(self.memory)} of memory and {_gpus(self.gpu)}"


class Resources(BaseModel):
    """Hold what was asked for a job; ``None`` asks for nothing and sets no limit.

    :param cpu: cores, a fraction is a share of one
    :param memory: bytes
    :param gpu: number of GPUs
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    memory: int | None = Field(default=None, gt=0)
    gpu: int | None = Field(default=None, ge=0)

    @classmethod
    def parse(
        cls,
        cpu: str | float | None = None,
        memory: str | None = None,
        gpu: str | int | None = None,
    ) -> Resources:
        """Read the options of the command line; raise :class:`InvalidResourceError` that says the rule."""
        return cls(
            cpu=None if cpu is None else _parse_cpu(str(cpu)),
            memory=None if memory is None else parse_size(str(memory), "--memory"),
            gpu=None if gpu is None else _parse_gpu(str(gpu)),
        )

    def check(self, capacity: Capacity) -> None:
        """Raise :class:`InvalidResourceError`, naming all that is too much, if the machine has not enough."""
        wrong = []
        if self.cpu is not None and self.cpu > capacity.cpu:
            wrong.append(f"--cpu asks for {_cores(self.cpu)}, the machine has {_cores(capacity.cpu)}")
        if self.memory is not None and self.memory > capacity.memory:
            asked, there = show_memory(self.memory), show_memory(capacity.memory)
            wrong.append(f"--memory asks for {asked}, the machine has {there}")
        if self.gpu is not None and self.gpu > capacity.gpu:
            wrong.append(f"--gpu asks for {_gpus(self.gpu)}, the machine has {_gpus(capacity.gpu)}")
        if wrong:
            raise InvalidResourceError(f"{'; '.join(wrong)}.", "Ask for less, or deploy to a larger machine.")

    def show(self) -> str:
        """Return it for people: ``2 cores, 512Mi of memory``, or ``no limits``."""
        parts = []
        if self.cpu is not None:
            parts.append(_cores(self.cpu))
        if self.memory is not None:
            parts.append(f"{show_memory(self.memory)} of memory")
        if self.gpu is not None:
            parts.append(_gpus(self.gpu))
        return ", ".join(parts) or "no limits"


def show_memory(size: int) -> str:
    """Return bytes for people: exact where that is short (``512Mi``, ``2G``), else rounded (``23.5Gi``)."""
    counts = {suffix: size // factor for suffix, factor in _FACTORS.items() if size % factor == 0}
    exact = [f"{count}{suffix}" for suffix, count in counts.items() if 0 < count < 10_000]
    if exact:
        return min(exact, key=len)
    for suffix in ("Ti", "Gi", "Mi", "Ki"):
        if size >= _FACTORS[suffix]:
            return f"{size / _FACTORS[suffix]:.1f}{suffix}"
    return f"{size} bytes"


def _parse_cpu(text: str) -> float:
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not value > 0:
        raise InvalidResourceError(f"{text!r} is not a valid --cpu.", CPU_RULE)
    return value


def parse_size(text: str, option: str) -> int:
    """Return the bytes that ``512Mi`` or ``2G`` means.

    :param option: of the command line, for the error
    :raises InvalidResourceError: it means none
    """
    match = _MEMORY.fullmatch(text)
    if match is None:
        raise InvalidResourceError(f"{text!r} is not a valid {option}.", MEMORY_RULE)
    whole, _, fraction = match[1].partition(".")
    # Whole numbers all the way: 0.1T is exactly 10**11 bytes, as no float would have it.
    size: int = int(whole + fraction) * _FACTORS[match[2]] // 10 ** len(fraction)
    if size < 1:
        raise InvalidResourceError(f"{text!r} is not a valid {option}.", MEMORY_RULE)
    return size


def _parse_gpu(text: str) -> int:
    if not _COUNT.fullmatch(text):
        raise InvalidResourceError(f"{text!r} is not a valid --gpu.", GPU_RULE)
    return int(text)


def _cores(count: float) -> str:
    return f"{count:g} core{'' if count == 1 else 's'}"


def _gpus(count: int) -> str:
    return f"{count or 'no'} GPU{'s' if count > 1 else ''}"
