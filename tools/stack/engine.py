"""A Docker engine of our own for a test, and the images that it needs where no registry can be reached.

The base image is made by debootstrap; images of other projects' programs hold what `tools.stack.programs`
built, under the names and versions of docker-compose.yml. Layers stay in the cache folder: only the first run
pays.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.stack.programs import default_cache, find

BASE = "arobust-test/base:bookworm-2"  # another number for other packages
BASE_PACKAGES = "python3,python3-venv,openssl,ca-certificates,wget"
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
OWN_AUTHORITIES = Path("/usr/local/share/ca-certificates")
START_SECONDS = 60.0
END_SECONDS = 60.0
NEEDED = ("dockerd", "docker", "docker-compose", "debootstrap", "iptables")
REMEDY = "apt-get install docker.io docker-compose debootstrap iptables"

Say = Callable[[str], None]


class NoEngine(RuntimeError):
    """This machine cannot run a Docker engine, or another one is in the way; the message says which."""


@dataclass(frozen=True, slots=True)
class Image:
    """A program as its project ships it: where the binary lies, whose process it is, what it may write."""

    programs: tuple[str, ...]
    folder: str
    user: str
    writes: tuple[str, ...] = ()


# Image names without tag, as docker-compose.yml has them.
IMAGES: Mapping[str, Image] = {
    "otel/opentelemetry-collector-contrib": Image(("otelcol",), "/", "10001"),
    "prom/prometheus": Image(("prometheus", "promtool"), "/bin", "65534", ("/prometheus",)),
    "prom/alertmanager": Image(("alertmanager", "amtool"), "/bin", "65534", ("/alertmanager",)),
    "grafana/loki": Image(("loki",), "/usr/bin", "10001", ("/loki",)),
    "jaegertracing/jaeger": Image(("jaeger",), "/cmd", "10001"),
}


def missing() -> list[str]:
    """What this machine lacks for an engine; empty where it has everything."""
    lacking = [name for name in NEEDED if shutil.which(name) is None]
    return lacking + ([] if os.geteuid() == 0 else ["root"])


@contextlib.contextmanager
def engine(say: Say) -> Iterator[dict[str, str]]:
    """Run dockerd on a socket of its own; gives the environment that clients need.

    Raises:
        NoEngine: it did not start, with its last words; or another one uses the same layers.
    """
    layers = default_cache() / "docker"
    layers.mkdir(parents=True, exist_ok=True)
    had_bridge = Path("/sys/class/net/docker0").exists()
    with tempfile.TemporaryDirectory(prefix="arobust-engine-") as name, _locked(layers) as lock:
        folder = Path(name)
        address = f"unix://{folder / 'docker.sock'}"
        environ = {
            **os.environ,
            "DOCKER_HOST": address,
            "DOCKER_BUILDKIT": "0",
            "COMPOSE_DOCKER_CLI_BUILD": "0",
        }
        command = ["dockerd", "--host", address, "--data-root", str(layers)]
        command += ["--exec-root", str(folder / "exec"), "--pidfile", str(folder / "pid")]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=(lock,),  # held as long as the engine lives, whatever becomes of us
            )
        try:
            _wait(process, folder / "log", environ)
            say("the Docker engine runs")
            yield environ
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(END_SECONDS)
            if not had_bridge:
                _forget_networks()


@contextlib.contextmanager
def _locked(layers: Path) -> Iterator[int]:
    with (layers / "engine.lock").open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise NoEngine(f"another engine uses {layers}: end its dockerd first") from None
        yield file.fileno()


def _wait(process: subprocess.Popen[bytes], log: Path, environ: Mapping[str, str]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while subprocess.run(["docker", "info"], env=dict(environ), capture_output=True, check=False).returncode:
        if process.poll() is not None or time.monotonic() > deadline:
            words = log.read_text(errors="replace")[-3000:]
            raise NoEngine(f"dockerd did not start:\n{words}")
        time.sleep(0.2)


def _forget_networks() -> None:
    """The engine leaves its bridge and a closed FORWARD chain behind."""
    for command in (["ip", "link", "delete", "docker0"], ["iptables", "-P", "FORWARD", "ACCEPT"]):
        if shutil.which(command[0]):
            subprocess.run(command, capture_output=True, check=False)


def make_base(environ: Mapping[str, str], say: Say) -> None:
    """A small Debian with Python; trusts the authorities that this machine trusts."""
    if _has(environ, BASE):
        return
    say("base image: debootstrap of a minimal Debian (about a minute)")
    with tempfile.TemporaryDirectory(prefix="arobust-base-") as name:
        root = Path(name) / "root"
        _run(
            ["debootstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", "bookworm", str(root)], environ
        )
        if OWN_AUTHORITIES.is_dir():
            shutil.copytree(OWN_AUTHORITIES, root / OWN_AUTHORITIES.relative_to("/"), dirs_exist_ok=True)
        shutil.copy(AUTHORITIES, root / AUTHORITIES.relative_to("/"))
        archive = Path(name) / "base.tar"
        _run(["tar", "-C", str(root), "-cf", str(archive), "."], environ)
        _run(
            ["docker", "import", "--change", f"ENV SSL_CERT_FILE={AUTHORITIES}", str(archive), BASE], environ
        )


def make_program_image(name: str, environ: Mapping[str, str], say: Say) -> None:
    """An image of a built program under the name (with its tag) that docker-compose.yml has.

    Raises:
        RuntimeError: one of its programs is not built.
    """
    image = IMAGES[name.partition(":")[0]]
    with tempfile.TemporaryDirectory(prefix="arobust-image-") as folder:
        lines = [f"FROM {BASE}"]
        for program in image.programs:
            binary = find(program)
            if binary is None:
                raise RuntimeError(f"{program} is not built: make stack-programs")
            shutil.copy(binary, Path(folder) / program)
            lines.append(f"COPY {program} {image.folder.rstrip('/')}/{program}")
        lines += [f"RUN install -d -o {image.user} -g {image.user} {path}" for path in image.writes]
        first = f"{image.folder.rstrip('/')}/{image.programs[0]}"
        lines += [f"USER {image.user}:{image.user}", f'ENTRYPOINT ["{first}"]']
        (Path(folder) / "Dockerfile").write_text("\n".join(lines) + "\n", encoding="utf-8")
        say(f"image {name}")
        _run(["docker", "build", "--tag", name, folder], environ)


def _has(environ: Mapping[str, str], image: str) -> bool:
    command = ["docker", "image", "inspect", image]
    return subprocess.run(command, env=dict(environ), capture_output=True, check=False).returncode == 0


def _run(command: Sequence[str], environ: Mapping[str, str]) -> None:
    done = subprocess.run(
        command, env=dict(environ), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:3])} ended with {done.returncode}:\n{done.stdout[-3000:]}")
