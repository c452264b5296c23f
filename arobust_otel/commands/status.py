"""`arobust status`."""

from __future__ import annotations

from typing import Any

import click

from arobust_otel.commands.delivered import delivered_lines
from arobust_otel.commands.received import received_lines
from arobust_otel.commands.shown import api_option, ask, json_option, print_json, rows
from arobust_otel.screen import render_ranks


@click.command(name="status")
@api_option
@click.option("--job", "job_id", help="Only this job.")
@json_option
def command(api: str, job_id: str | None, as_json: bool) -> None:
    """Show jobs, ranks, agents and what the master receives, and what cannot be seen."""
    only = {"job_id": job_id}
    answers = {
        "status": ask(api, "status"),
        "jobs": rows(ask(api, "jobs", only), "jobs"),
        "ranks": rows(ask(api, "ranks", only), "ranks"),
        "agents": rows(ask(api, "agents", only), "agents"),
    }
    if as_json:
        print_json(answers)
        return
    for text in _sections(answers):
        click.echo(text)


def _sections(answers: dict[str, Any]) -> list[str]:
    if not answers["jobs"]:
        return ["The master answers and has seen no job yet.", *_master(answers["status"])]
    texts = [_job(job) for job in answers["jobs"] if not job.get("superseded")]
    texts += ["", render_ranks(answers["ranks"]), ""]
    texts += [line for agent in answers["agents"] for line in _agent(agent)]
    return texts + _master(answers["status"])


def _master(status: dict[str, Any]) -> list[str]:
    return received_lines(status) + delivered_lines(status)


def _job(job: dict[str, Any]) -> str:
    alive, size = job.get("ranks_alive", 0), job.get("world_size") or job.get("ranks_seen", 0)
    restarts = f", restart {job['incarnation']}" if job.get("incarnation") else ""
    incidents = job.get("open_incidents", 0)
    trouble = f"{incidents} open incident{'s' * (incidents != 1)}" if incidents else "no open incident"
    return f"Job {job.get('job_id')}{restarts}: {alive} of {size} ranks alive, {trouble}"


def _agent(agent: dict[str, Any]) -> list[str]:
    state = "ended" if agent.get("ended") else f"last heard {agent.get('last_heartbeat_at')}"
    lines = [f"Agent {agent.get('agent')}: {state}", *_client(agent.get("stats") or {})]
    broken = [row for row in agent.get("collectors", []) if not row.get("ok")]
    lines += [f"  {row.get('name')} does not work: {row.get('reason')}" for row in broken]
    return lines + [f"  cannot see: {gap}" for gap in agent.get("gaps", [])]


def _client(stats: dict[str, float]) -> list[str]:
    """What became of an agent's telemetry; nothing where it told no figures."""
    if "delivered" not in stats:
        return []
    figures = {name: int(stats.get(name, 0)) for name in ("delivered", "dropped", "queue_items", "retries")}
    parts = ["{delivered} items delivered, {dropped} dropped, {queue_items} wait in memory".format(**figures)]
    if stats.get("queue_bytes"):
        parts[0] += f" ({stats['queue_bytes'] / 1024:.0f} KiB)"
    if "spool_items" in stats:
        parts.append(
            f"{int(stats['spool_items'])} on the disk ({stats.get('spool_bytes', 0) / 1024:.0f} KiB)"
        )
    if stats.get("oldest_age_seconds"):
        parts.append(f"the oldest for {stats['oldest_age_seconds']:.1f} s")
    if figures["retries"]:
        parts.append(f"{figures['retries']} sends repeated")
    if stats.get("circuit_open"):
        parts.append("its master is only probed after failures")
    reasons = {name.partition(".")[2]: count for name, count in stats.items() if name.startswith("dropped.")}
    why = [f"  dropped: {int(count)} {reason}" for reason, count in sorted(reasons.items())]
    return [f"  {', '.join(parts)}", *why, *_wire(stats)]


def _wire(stats: dict[str, float]) -> list[str]:
    """What went over the wire: requests, how long the last one took, bytes; nothing before the first."""
    if not stats.get("sends"):
        return []
    parts = [f"{int(stats['sends'])} requests"]
    if "latency_seconds" in stats:
        parts.append(f"the last took {1000 * stats['latency_seconds']:.0f} ms")
    if "bytes_raw" in stats:
        parts.append(f"{stats['bytes_raw'] / 1024:.0f} KiB before compression")
    if "bytes_sent" in stats:
        parts.append(f"{stats['bytes_sent'] / 1024:.0f} KiB sent")
    handed = [f"{int(stats.get('accepted', 0))} items accepted"]
    if stats.get("recovered"):
        handed.append(f"{int(stats['recovered'])} recovered from earlier processes")
    return [f"  {', '.join([*handed, *parts])}"]
