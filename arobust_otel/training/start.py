"""Begins our work in this process according to its role; called once, by the instrumentor."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, MutableMapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING

import wrapt

from arobust_otel import guard
from arobust_otel.model.beacon_paths import launcher_file
from arobust_otel.model.identity import SINGLE, RankIdentity, resolve_rank
from arobust_otel.training import roles
from arobust_otel.training.place import JOB_ID, find_place, open_page, start_agent
from arobust_otel.training.roles import Role

if TYPE_CHECKING:
    from arobust_otel.training.rank_process import RankProcess

# Importing one of these makes a plain Python process a training.
FRAMEWORKS = ("torch", "jax", "tensorflow", "mindspore")
# What `torch_hooks` knows to hook; names only, so that its code is loaded when torch is.
TORCH_MODULES = (
    "torch.serialization",
    "torch.autograd",
    "torch.nn.modules.module",
    "torch.optim.optimizer",
    "torch.utils.data.dataloader",
    "torch.distributed.distributed_c10d",
    "torch.distributed.checkpoint.state_dict_saver",
    "torch.distributed.checkpoint.state_dict_loader",
)


def begin(environ: MutableMapping[str, str], command: Sequence[str]) -> Role:
    """Start what the role asks for.

    Args:
        environ: `os.environ`: children inherit what is set here.
        command: `sys.orig_argv`.
    """
    role = roles.decide(command, environ, os.getpid())
    if role is Role.LAUNCHER:
        begin_launcher(environ, command)
    elif role is Role.RANK:
        identity = resolve_rank(environ)
        assert identity is not None
        _begin_hooked(environ, command, identity, at_once=True)
    elif role is Role.SINGLE:
        is_named = bool(environ.get("AROBUST_MASTER") or environ.get(JOB_ID))
        if is_named or roles.program(command)[0] != "-c":
            _begin_hooked(environ, command, SINGLE, at_once=is_named)
    return role


def begin_launcher(environ: MutableMapping[str, str], command: Sequence[str]) -> None:
    """Launcher: beacon, agent, then the hooks on children, signals and exit."""
    from arobust_otel.training import launcher

    place = find_place(environ, command)
    environ[roles.LAUNCHER_PID] = str(os.getpid())
    path = place.folder / launcher_file(os.getpid()) if place.folder else None
    page = open_page(path)
    os.register_at_fork(after_in_child=page.drop)
    writer = launcher.LauncherWriter(page, place.job_id, socket.gethostname(), " ".join(command[1:]))
    agent = start_agent(place, environ)
    launcher.watch_children(writer)
    launcher.watch_signals(writer)
    if place.folder is not None:
        launcher.watch_exit(writer, place.folder, agent)


def _begin_hooked(
    environ: MutableMapping[str, str], command: Sequence[str], identity: RankIdentity, at_once: bool
) -> None:
    """Rank or single process: the beacon is made at once, or when a framework is imported."""
    from arobust_otel.training.rank_process import RankProcess

    process: list[RankProcess] = []

    def running() -> RankProcess:
        if not process:
            process.append(RankProcess.start(environ, command, identity))
        return process[0]

    if at_once:
        running()
    _register(running)


def _register(running: Callable[[], RankProcess]) -> None:
    def hook(module: ModuleType) -> None:
        running().hook_torch(module)

    for name in TORCH_MODULES:
        wrapt.register_post_import_hook(guard.contained(f"hook {name}")(hook), name)
    for name in FRAMEWORKS:
        wrapt.register_post_import_hook(guard.contained(f"hook {name}")(lambda _module: running()), name)
