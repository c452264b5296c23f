"""What this process is to the job: launcher, rank, single process or helper; pure.

Decided from the command line that the interpreter was started with, and the environment. A helper does
nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import Enum

from arobust_otel.model.identity import resolve_job_id, resolve_rank

RANK_PID = "AROBUST_RANK_PID"
LAUNCHER_PID = "AROBUST_LAUNCHER"


class Role(Enum):
    """The part that this process plays."""

    LAUNCHER = "launcher"
    RANK = "rank"
    SINGLE = "single"
    HELPER = "helper"


_LAUNCHER_MODULES = frozenset(
    {
        "torch.distributed.run",
        "torch.distributed.launch",
        "torch.distributed.elastic.agent",
        "accelerate.commands.launch",
        "accelerate.commands.accelerate_cli",
        "deepspeed.launcher.runner",
        "deepspeed.launcher.launch",
    }
)
_LAUNCHER_SCRIPTS = frozenset(
    {"torchrun", "accelerate", "accelerate-launch", "deepspeed", "deepspeed.pt", "ds"}
)
_HELPER_MODULES = frozenset({"pip", "ensurepip", "venv", "torch._inductor.compile_worker", "py_spy", "build"})
_HELPER_SCRIPTS = frozenset({"pip", "pip3", "py-spy", "ninja", "nvidia-smi", "arobust"})
_HELPER_WORDS = (
    "multiprocessing.resource_tracker",
    "multiprocessing.forkserver",
    "--multiprocessing-fork",
    "torch/_inductor/compile_worker",
    "torch._inductor.compile_worker",
)
# Options of the interpreter that take the next word.
_WITH_VALUE = ("-W", "-X", "--check-hash-based-pycs")


def program(command: Sequence[str]) -> tuple[str, str, list[str]]:
    """How a Python command line names its program: kind (``-m``, ``-c``, script or empty), name, arguments.

    >>> program(["python", "-X", "dev", "-m", "torch.distributed.run", "train.py"])
    ('-m', 'torch.distributed.run', ['train.py'])
    """
    index = 1
    while index < len(command):
        word = command[index]
        if word in _WITH_VALUE:
            index += 2
        elif word in ("-m", "-c"):
            name = command[index + 1] if index + 1 < len(command) else ""
            return word, name, list(command[index + 2 :])
        elif word.startswith("-") and word != "-":
            index += 1
        else:
            return "script", word, list(command[index + 1 :])
    return "", "", []


def decide(command: Sequence[str], environ: Mapping[str, str], pid: int) -> Role:
    """The role of a process.

    Args:
        command: `sys.orig_argv`.
        environ: its environment.
        pid: its own process id: a child of a rank carries another one in its environment.
    """
    rank_pid = environ.get(RANK_PID)
    if rank_pid is not None and rank_pid != str(pid):
        return Role.HELPER
    kind, name, arguments = program(command)
    base = name.rsplit("/", 1)[-1]
    if _is_helper(kind, name, base, command):
        return Role.HELPER
    if kind == "-m" and name in _LAUNCHER_MODULES:
        return Role.LAUNCHER
    if kind == "script" and base in _LAUNCHER_SCRIPTS:
        return Role.HELPER if base == "accelerate" and arguments[:1] != ["launch"] else Role.LAUNCHER
    return Role.RANK if resolve_rank(environ) is not None else Role.SINGLE


def _is_helper(kind: str, name: str, base: str, command: Sequence[str]) -> bool:
    if kind == "":
        return True  # an interactive interpreter
    if kind == "-m" and (name in _HELPER_MODULES or name.partition(".")[0] == "arobust_otel"):
        return True
    if kind == "script" and base in _HELPER_SCRIPTS:
        return True
    return any(word in part for word in _HELPER_WORDS for part in command)


def _option(arguments: Sequence[str], *names: str) -> str | None:
    for index, word in enumerate(arguments):
        option, equals, value = word.partition("=")
        if option.lstrip("-").replace("_", "-") in names and word.startswith("-"):
            if equals:
                return value
            return arguments[index + 1] if index + 1 < len(arguments) else None
    return None


def job_id(command: Sequence[str], environ: Mapping[str, str], now: str, pid: int) -> str:
    """The job that a launcher, or a process without launcher, works for.

    Several nodes must come to the same name, so there the rendezvous names the job; on one node the script,
    the time of the start and the process id do.

    Args:
        command: `sys.orig_argv`.
        environ: the environment.
        now: start time as ``YYYYmmdd-HHMMSS``.
        pid: the process id.
    """
    named = resolve_job_id(environ)
    if named is not None:
        return named
    _, name, arguments = program(command)
    rendezvous = _option(arguments, "rdzv-id") or environ.get("PET_RDZV_ID")
    if rendezvous and rendezvous != "none":
        return rendezvous
    nodes = _option(arguments, "nnodes") or environ.get("PET_NNODES") or "1"
    if nodes not in ("1", "1:1") or environ.get("GROUP_WORLD_SIZE", "1") != "1":
        shared = _rendezvous(arguments, environ)
        if shared:
            return shared
    return f"{_stem(name, arguments)}-{now}-{pid}"


def _rendezvous(arguments: Sequence[str], environ: Mapping[str, str]) -> str | None:
    endpoint = _option(arguments, "rdzv-endpoint") or environ.get("PET_RDZV_ENDPOINT")
    if endpoint:
        return re.sub(r"[^A-Za-z0-9._-]", "-", endpoint)
    address = _option(arguments, "master-addr") or environ.get("MASTER_ADDR")
    port = _option(arguments, "master-port") or environ.get("MASTER_PORT")
    return f"{address}-{port}" if address and port else None


def _stem(name: str, arguments: Sequence[str]) -> str:
    scripts = [word for word in (name, *arguments) if word.endswith(".py")]
    word = scripts[0] if scripts else name
    stem = word.rsplit("/", 1)[-1].removesuffix(".py")
    return re.sub(r"[^A-Za-z0-9._-]", "_", stem).strip("._")[:40] or "python"
