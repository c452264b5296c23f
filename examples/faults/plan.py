"""Draw what will happen to a rank, under which names, and write it down as an extension of the training."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from string import Template

from faults.bodies import BODIES
from faults.decoys import DECOYS, DECOYS_SOURCE
from faults.names import draw_names

# fault, right cause, does the verdict have to name the function
FAULTS: tuple[tuple[str, str | None, bool], ...] = (
    ("hang", "hang_user_code", True),
    ("stop", "process_stopped", False),
    ("gil", "hang_interpreter_lock", True),
    ("kill", "process_killed", False),
    ("segfault", "process_crashed", True),
    ("exception", "python_exception", True),
    ("early_exit", "early_exit", False),
    ("none", None, False),
)

_SOURCE = '''"""$title"""

import socket
$imports
_FOLDER = $folder
_inbox = None


def _message(rank):
    """The setting that arrived since the last batch, or nothing; never waits."""
    global _inbox
    if _inbox is None:
        _inbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        _inbox.setblocking(False)
        _inbox.bind("%s/%d" % (_FOLDER, rank))
    try:
        text, sender = _inbox.recvfrom(64)
    except BlockingIOError:
        return ""
    _inbox.sendto(text, sender)
    return text.decode()

$code

def on_batch(step, rank, batch):
    if _message(rank) == "$order":
        return $function(step)
    return True
'''


@dataclass(frozen=True, slots=True)
class Plan:
    """One run: what happens, how it is ordered, and what a right verdict says.

    Attributes:
        variant: how it is done, in words for the person who runs it.
        cause: the only right cause; None where no incident may open.
        file: name of the rendered file; the verdict names it where `named` is true.
        orders: what is sent to the rank, in this order; empty where a signal does it.
    """

    fault: str
    variant: str
    cause: str | None
    file: str
    function: str
    named: bool
    orders: tuple[str, ...]
    source: str


def draw(fault: str, seed: int, socket_folder: Path, variant: str | None = None) -> Plan:
    """The plan for one run; equal arguments give equal plans.

    Args:
        socket_folder: where the ranks bind their sockets, as it will stand in the rendered file.
        variant: take this one instead of drawing it.
    """
    chance = random.Random(f"{fault} {seed}")
    names = draw_names(chance)
    _, cause, named = next(row for row in FAULTS if row[0] == fault)
    if fault == "none":
        source = Template(DECOYS_SOURCE).substitute(folder=repr(str(socket_folder)), title=names.title)
        decoys = tuple(decoy.order for decoy in DECOYS)
        return Plan(fault, "every irregularity", None, names.file, names.function, False, decoys, source)
    rows = [row for row in BODIES if row.fault == fault and variant in (None, row.variant)]
    body = chance.choice(rows)
    values = {"function": names.function, "seconds": names.seconds}
    source = Template(_SOURCE).substitute(
        values,
        title=names.title,
        folder=repr(str(socket_folder)),
        imports="".join(f"import {name}\n" for name in body.imports if name != "socket"),
        code=Template(body.code).substitute(values),
        order=names.order,
    )
    orders = () if fault in ("stop", "kill") else (names.order,)
    return Plan(fault, body.variant, cause, names.file, names.function, named, orders, source)


def write(plan: Plan, folder: Path) -> Path:
    """Write the extension file into the run's folder and return its path."""
    path = folder / plan.file
    path.write_text(plan.source, encoding="utf-8")
    return path
