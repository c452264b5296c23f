"""What the drawn function really does: one row per variant, several rows per fault.

Each `code` is a part of the rendered file and defines the function `$function(step)`. It has to read like a
mistake that somebody could have made, and nothing in it may say what it is for.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Body:
    """One variant of one fault: the modules it needs and the code of its function."""

    fault: str
    variant: str
    imports: tuple[str, ...]
    code: str


BODIES: tuple[Body, ...] = (
    Body(
        "hang",
        "lock never released",
        ("threading",),
        '''
_table_lock = threading.Lock()
_table = {}


def _register(step):
    """Give the step its row; a step that is known keeps it."""
    _table_lock.acquire()
    if step in _table:
        _table_lock.release()
        return
    _table[step] = len(_table)


def $function(step):
    """Row of the step in the shared table."""
    _register(step)
    with _table_lock:
        return _table[step] >= 0
''',
    ),
    Body(
        "hang",
        "socket read without an answer",
        ("socket",),
        '''
def $function(step):
    """Ask the index service for the rows of this step."""
    with socket.create_server(("127.0.0.1", 0)) as service:
        with socket.create_connection(service.getsockname()) as connection:
            connection.sendall(b"ROWS %d\\n" % step)
            return len(connection.recv(4096)) > 0
''',
    ),
    Body(
        "gil",
        "asleep in sleep()",
        ("ctypes",),
        '''
_native = ctypes.PyDLL(None)


def $function(step):
    """Wait until the native side has the rows."""
    return _native.sleep(1_000_000 + step) == 0
''',
    ),
    Body(
        "gil",
        "asleep in pause()",
        ("ctypes",),
        '''
_native = ctypes.PyDLL(None)


def $function(step):
    """Wait until the native side wakes us."""
    return _native.pause() + step >= 0
''',
    ),
    Body(
        "gil",
        "burning in a regular expression",
        ("re",),
        r'''
_WORDS = re.compile(r"(?:[a-z]+\s?)+$$")


def $function(step):
    """Whether the header line of this step consists of words only."""
    return _WORDS.match("alpha beta gamma delta epsilon zeta eta theta %d" % step) is not None
''',
    ),
    Body(
        "gil",
        "burning in an endless iterator",
        ("collections", "itertools"),
        '''
def $function(step):
    """Skip what comes before this step."""
    rows = itertools.filterfalse(None, itertools.repeat(step))
    return len(collections.deque(rows, maxlen=1)) > 0
''',
    ),
    Body(
        "segfault",
        "read through a stale pointer",
        ("ctypes",),
        '''
def $function(step):
    """First row behind the offset that the index names."""
    rows = ctypes.cast(64 + 8 * (step % 4), ctypes.POINTER(ctypes.c_int64))
    return rows[0] >= 0
''',
    ),
    Body(
        "segfault",
        "copy to a bad address",
        ("ctypes",),
        '''
def $function(step):
    """Copy the rows of this step into the pinned buffer."""
    rows = bytes(64)
    ctypes.memmove(4096 + step % 64, rows, len(rows))
    return True
''',
    ),
    Body(
        "exception",
        "a record too short, a thread that lingers",
        ("threading",),
        '''
def _keep_warm(stop):
    stop.wait($seconds)


def $function(step):
    """Fields of the record that belongs to this step."""
    threading.Thread(target=_keep_warm, args=(threading.Event(),), name="prefetch").start()
    fields = ("%d;0" % step).split(";")
    if len(fields) < 3:
        raise ValueError("record %d has %d fields, 3 expected" % (step, len(fields)))
    return True
''',
    ),
    Body(
        "exception",
        "a missing key, a thread that lingers",
        ("threading",),
        '''
def _keep_warm(stop):
    stop.wait($seconds)


def $function(step):
    """Weight of the source that this step reads from."""
    threading.Thread(target=_keep_warm, args=(threading.Event(),), name="prefetch").start()
    weights = {"lib": 0.7, "encodings": 0.3}
    return weights["lib/%d" % step] >= 0
''',
    ),
    Body(
        "early_exit",
        "the data ends",
        (),
        '''
def $function(step):
    """Whether there are rows left after this step."""
    return False
''',
    ),
    Body(
        "stop",
        "SIGSTOP",
        (),
        '''
def $function(step):
    """Whether there are rows left after this step."""
    return step >= 0
''',
    ),
    Body(
        "kill",
        "SIGKILL",
        (),
        '''
def $function(step):
    """Whether there are rows left after this step."""
    return step >= 0
''',
    ),
)
