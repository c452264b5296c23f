"""What to do about a failed training process: by what is said of it, its log, and its restarts so far.

Pure. A node is given up where the failure names it, where a configured text was seen, or where restarting did
not help; anything else is restarted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from arobust_otel.common.constants import (
    DiagnosisActionType,
    DiagnosisErrorConstant,
    TrainingExceptionLevel,
)
from arobust_otel.common.diagnosis_data import ProcessError

MAX_RESTARTS = 3
_MAX_TEXTS, _MAX_DEPTH = 1000, 5
_FIELDS = ("message", "error", "exitcode", "level", "reason", "observation", "data_content", "local_rank")

# What says that the machine is to blame, and an example of each; a restart on it would fail again.
NODE_SIGNS: tuple[tuple[str, str], ...] = (
    (rf"\b{DiagnosisErrorConstant.NODE_FAILED}\b", "NODE_FAILED"),
    (rf"\b{DiagnosisErrorConstant.GPU_ERROR}\b", "GPU_ERROR"),
    (rf"\b{TrainingExceptionLevel.NODE_ERROR.name}\b", "NODE_ERROR"),
    (r"(?i)gpu is lost|fallen off the bus", "Unable to determine the device handle: GPU is lost"),
    (r"(?i)uncorrectable ecc|uncorrectable nvlink", "CUDA error: uncorrectable ECC error encountered"),
    (r"\bNVRM: Xid\b", "NVRM: Xid (PCI:0000:3b:00): 79"),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The kind of action, and why in one sentence."""

    action_type: DiagnosisActionType
    reason: str


def patterns_of(errors: str) -> tuple[str, ...]:
    """Texts of the option `errors`: between ``#`` where it has one (DLRover's form), else between commas.

    >>> patterns_of("#CUDA error, device lost#NCCL timeout#"), patterns_of("ECC, Xid")
    (('CUDA error, device lost', 'NCCL timeout'), ('ECC', 'Xid'))
    """
    parts = errors.split("#" if "#" in errors else ",")
    return tuple(part.strip() for part in parts if part.strip())


def judge(failures: object, log_text: str, patterns: Iterable[str], restart_count: int) -> Verdict:
    """What to do.

    Args:
        failures: a text, an exception, a ProcessError, an object with such fields, or several of these.
        log_text: the end of the training log.
        patterns: texts that mean a failed node, see `patterns_of`.
        restart_count: restarts so far.
    """
    said = "\n".join(texts_of(failures))
    first = next((line for line in said.splitlines() if line.strip()), "")
    if re.search(rf"\b{TrainingExceptionLevel.JOB_ERROR.name}\b", said):
        return Verdict(DiagnosisActionType.STOP_JOB, f"the failure concerns the whole job: {first[:200]}")
    for pattern in patterns:
        for where, text in (("the failure", said), ("the training log", log_text)):
            if pattern in text:
                return Verdict(DiagnosisActionType.RELAUNCH_WORKER, f"{where} says {pattern!r}")
    for sign, _ in NODE_SIGNS:
        if found := re.search(sign, said):
            return Verdict(DiagnosisActionType.RELAUNCH_WORKER, f"the failure blames the node: {found[0]!r}")
    why = f": {first[:200]}" if first else ""
    if restart_count < MAX_RESTARTS:
        return Verdict(
            DiagnosisActionType.RESTART_WORKER, f"restart {restart_count + 1} of {MAX_RESTARTS}{why}"
        )
    return Verdict(
        DiagnosisActionType.RELAUNCH_WORKER, f"{restart_count} restarts on this node did not help{why}"
    )


def texts_of(failures: object, depth: int = 0) -> list[str]:
    """Everything that a description of failures says, as texts."""
    if failures is None or depth > _MAX_DEPTH:
        return []
    if isinstance(failures, (str, int, float)):
        return [str(failures)]
    if isinstance(failures, bytes):
        return [failures.decode("utf-8", "replace")]
    if isinstance(failures, Enum):
        return [failures.name]
    if isinstance(failures, BaseException):
        return [f"{type(failures).__name__}: {failures}"]
    if isinstance(failures, ProcessError):
        return [f"local rank {failures.local_rank}, exit code {failures.exitcode}: {failures.message}"]
    if isinstance(failures, Mapping):
        return _several(failures.values(), depth)
    if isinstance(failures, Iterable):
        return _several(failures, depth)
    known = [getattr(failures, name) for name in _FIELDS if hasattr(failures, name)]
    return _several(known, depth) if known else [str(failures)]


def _several(values: Iterable[object], depth: int) -> list[str]:
    found: list[str] = []
    for value in values:
        found += texts_of(value, depth + 1)
        if len(found) >= _MAX_TEXTS:
            break
    return found
