"""Irregularities of healthy work: each looks like a fault for a while, and none is one.

All are in one rendered file; the orders arrive one after another, and the rank answers when it is done.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Decoy:
    """One order: which ranks get it (`rank` is the chosen one), and what happens then."""

    order: str
    who: str
    says: str


DECOYS: tuple[Decoy, ...] = (
    Decoy("export", "zero", "rank 0 writes a checkpoint for 20 s, the others wait in a barrier"),
    Decoy("dedupe", "rank", "one rank holds the interpreter lock for about 12 s in numpy"),
    Decoy("validate", "zero", "rank 0 alone evaluates for 12 s"),
    Decoy("compact", "rank", "one rank collects the garbage of a large object graph"),
    Decoy("throttle", "all", "all ranks pause for 12 s"),
)

DECOYS_SOURCE = '''"""$title"""

import gc
import hashlib
import math
import os
import pathlib
import socket
import sysconfig
import time

import numpy
import torch

_FOLDER = $folder
_inbox = None
_wanted = {}


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
    _wanted[text.decode()] = sender
    return text.decode()


def _done(name, rest=""):
    """Tell whoever asked that it is finished."""
    _inbox.sendto(("%s %s" % (name, rest)).strip().encode(), _wanted.pop(name))


def digest_sources(seconds):
    """Hash every source file that the text comes from, as often as the first batch has time for."""
    end, digest = time.monotonic() + seconds, hashlib.sha256()
    while time.monotonic() < end:
        for path in pathlib.Path(sysconfig.get_path("stdlib")).glob("*.py"):
            digest.update(path.read_bytes())
            if time.monotonic() > end:
                break
    return digest.hexdigest()


def export_shards(folder, seconds=20.0):
    """Write the weights as shards of 4 MB, each safe on the disk before the next."""
    end, shard, count = time.monotonic() + seconds, os.urandom(1 << 22), 0
    path = folder / "shard.bin"
    while time.monotonic() < end:
        with path.open("wb") as file:
            file.write(shard)
            file.flush()
            os.fsync(file.fileno())
        count += 1
    path.unlink()
    return count


def count_distinct(seconds=12.0):
    """Distinct values of a column of Python objects; sized by a trial so that it takes that long."""
    trial = numpy.random.default_rng(0).integers(0, 1 << 40, 300_000).astype(object)
    begun = time.monotonic()
    numpy.unique(trial)
    spent = time.monotonic() - begun
    size = int(len(trial) * seconds / spent)
    size = min(20_000_000, int(size * math.log(len(trial)) / math.log(size)))
    column = numpy.random.default_rng(1).integers(0, 1 << 40, size).astype(object)
    begun = time.monotonic()
    numpy.unique(column)
    return time.monotonic() - begun


def score_held_out(model, seconds=12.0):
    """Score random windows with the current weights."""
    end, total = time.monotonic() + seconds, 0.0
    model.eval()
    with torch.no_grad():
        while time.monotonic() < end:
            total += model(torch.randint(0, 256, (8, 64))).mean().item()
    model.train()
    return total


def compact_index(entries=1_500_000):
    """Build the index anew, drop the old one, and give its memory back."""
    index = [[number, {"next": [number]}] for number in range(entries)]
    for row in index:
        row.append(index)
    for _ in range(3):
        gc.collect()
    del index
    return gc.collect()


def wait_for_quota(seconds=12.0):
    """Storage asks everybody to wait."""
    time.sleep(seconds)


def on_batch(step, rank, batch):
    if step == 1:
        digest_sources(6.0 + 2.0 * (rank % 3))
    name = _message(rank)
    if name == "dedupe":
        _done(name, "%.1f" % count_distinct())
    elif name == "compact":
        compact_index()
        _done(name)
    elif name == "throttle":
        wait_for_quota()
        _done(name)
    return True


def on_checkpoint(step, path):
    if "export" in _wanted:
        _done("export", "%d" % export_shards(path.parent))


def on_evaluation(step, model):
    if "validate" in _wanted:
        score_held_out(model)
        _done("validate")
'''
