"""Handing a metric to whatever client the user gave: our MasterClient, DLRover's, or an object of a test.

Never raises. Our own client acknowledges later, from its thread; any other has taken the metric when its call
returns, unless it returns False.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from arobust_otel import guard
from arobust_otel.agent.worker_metrics import CollectedMetric, identity_of, items_of
from arobust_otel.common.constants import DiagnosisDataType
from arobust_otel.common.diagnosis_data import WorkerTrainingMetric
from arobust_otel.common.utils import get_node_id, get_node_rank, get_node_type
from arobust_otel.model import signals
from arobust_otel.model.identity import resolve_rank
from arobust_otel.model.samples import Attributes

logger = logging.getLogger("arobust_otel.agent.data_collector")
_OURS = "arobust_otel.agent.master_client"


def _nothing() -> None:
    return


@dataclass(frozen=True, slots=True)
class Outcome:
    """What to call, from any thread, when a metric has been taken, and when it has not; one of them, once."""

    taken: Callable[[], None] = _nothing
    failed: Callable[[], None] = _nothing


def is_master_client(client: object) -> bool:
    """Whether a client is our own, and does what ours does: a class that reports otherwise is a stranger.

    Asked without importing it: where its module is not loaded, no object can be one.
    """
    module = sys.modules.get(_OURS)
    kind: Any = getattr(module, "MasterClient", None)
    if kind is None or not issubclass(type(client), kind):
        return False
    own: Any = type(client)
    return bool(own.report_diagnosis_agent_metrics is kind.report_diagnosis_agent_metrics)


def hand_over(client: Any, metric: WorkerTrainingMetric, outcome: Outcome | None = None) -> None:
    """Give a metric to a client; an error of the client is an error in the log and nothing else."""
    outcome = outcome or Outcome()
    if is_master_client(client):
        attempt = identity_of(metric, client.resource)
        client.report(items_of(metric), outcome.taken, True, attempt, outcome.failed)
        return
    answer, error = guard.attempt("client", lambda: client.report_diagnosis_agent_metrics(metric))
    if error is not None:
        logger.error("the client did not take %s: %s: %s", metric.data_type.name, type(error).__name__, error)
    if error is not None or answer is False:
        outcome.failed()
    else:
        outcome.taken()


def worker_metric(
    data_type: DiagnosisDataType,
    content: str,
    items: Sequence[Any] | None = None,
    node_rank: int | None = None,
) -> WorkerTrainingMetric:
    """A metric of this node, now.

    Args:
        data_type: what it holds.
        content: its text, for clients that know nothing else.
        items: what the text stands for, exactly; None where nobody knows better than the text.
        node_rank: what the user said; else what the environment says.
    """
    metric = (WorkerTrainingMetric if items is None else CollectedMetric)(
        data_type=data_type,
        data_content=content,
        node_id=get_node_id(),
        node_type=get_node_type(),
        node_rank=get_node_rank() if node_rank is None or node_rank < 0 else node_rank,
        timestamp=int(time.time()),
    )
    if isinstance(metric, CollectedMetric):
        metric.items = tuple(items or ())
    return metric


def process_attributes() -> Attributes:
    """Who this process is, for its log records and stacks: rank where it has one, process id, node."""
    found: Attributes = {signals.PID: os.getpid()}
    rank = resolve_rank(os.environ)
    if rank is not None:
        found |= rank.attributes()
    if (node := get_node_id()) >= 0:
        found[signals.NODE_ID] = node
    return found
