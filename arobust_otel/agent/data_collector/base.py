"""What every collector of the predecessor's kind is: something that collects, may be off, and hands over."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar

from arobust_otel import guard
from arobust_otel.agent import adapted
from arobust_otel.agent.handing import Outcome, hand_over, logger, worker_metric
from arobust_otel.common.constants import DiagnosisDataType
from arobust_otel.common.diagnosis_data import ResourceStats, WorkerTrainingMetric


class DataCollector(ABC):
    """One source of data. A subclass needs `collect_data` and `is_enabled`, nothing more.

    `data_type` says what its texts are. A user's subclass may have a `_client`, a `node_rank` or
    an `__init__` of its own, and may be a frozen dataclass: what is kept here does not meet them.
    """

    data_type: ClassVar[DiagnosisDataType | None] = None
    __client: Any = None
    __node_rank: int | None = None
    __told: bool = False

    @abstractmethod
    def collect_data(self) -> object:
        """What is new, or what is now; None, an empty text or an empty dict where there is nothing."""

    @abstractmethod
    def is_enabled(self) -> bool:
        """Whether it makes sense to collect now."""

    def set_client(self, client: Any) -> None:
        """What takes the data from now on: anything with ``report_diagnosis_agent_metrics(metric)``."""
        object.__setattr__(self, "_DataCollector__client", client)

    def set_node_rank(self, node_rank: int) -> None:
        """The rank of the node that metrics name from now on; negative: what the environment says."""
        object.__setattr__(self, "_DataCollector__node_rank", node_rank)

    def store_data(self, data: object) -> None:
        """Hand data over; an empty value is passed over, and without a client a warning is said."""
        if data is None or data == "" or (isinstance(data, (dict, list, tuple)) and not data):
            return
        name = type(self).__name__
        metric, error = guard.attempt(name, lambda: metric_of(name, data, self.data_type, self.__node_rank))
        if metric is None:
            logger.warning("%s gave something that cannot be sent: %s", name, error)
            return
        self._hand(metric)

    def _metric(
        self, data_type: DiagnosisDataType, content: str, items: Sequence[Any] | None = None
    ) -> WorkerTrainingMetric:
        """A metric of this node, now; `items` is what the text stands for, exactly, where that is known."""
        return worker_metric(data_type, content, items, self.__node_rank)

    def _hand(self, metric: WorkerTrainingMetric, outcome: Outcome | None = None) -> None:
        """Give a metric to the client there is; without one it has failed."""
        if self.__client is not None:
            hand_over(self.__client, metric, outcome)
            return
        if not self.__told:
            object.__setattr__(self, "_DataCollector__told", True)
            logger.warning("%s has no client: nothing is sent; call set_client()", type(self).__name__)
        if outcome is not None:
            outcome.failed()

    def _refuses(self, data: object, kind: type[Any]) -> bool:
        """Whether data is of another type than this collector hands over, which is said."""
        if isinstance(data, kind):
            return False
        logger.warning("%s hands over %s, not %s", type(self).__name__, kind.__name__, type(data).__name__)
        return True


def metric_of(
    name: str, data: object, data_type: DiagnosisDataType | None = None, node_rank: int | None = None
) -> WorkerTrainingMetric:
    """Whatever a user's collector returned, as a metric: `adapted.items_of` says what it stands for.

    Raises:
        TypeError: it stands for nothing that can be sent.
    """
    if isinstance(data, WorkerTrainingMetric):
        return data
    if not isinstance(data_type, DiagnosisDataType):  # a user's attribute of that name may mean anything
        data_type = None
    if isinstance(data, ResourceStats):
        content = json.dumps(asdict(data))
        return worker_metric(DiagnosisDataType.RESOURCE_STATS, content, None, node_rank)
    if isinstance(data, str):
        if data_type not in (None, DiagnosisDataType.TRAINING_LOG):
            return worker_metric(data_type, data, None, node_rank)
        return worker_metric(DiagnosisDataType.TRAINING_LOG, data, None, node_rank)
    items = tuple(adapted.items_of(name, data, time.time_ns()))
    content = json.dumps(data, default=str)
    kind = DiagnosisDataType.TRAINING_METRIC if isinstance(data, Mapping) else DiagnosisDataType.TRAINING_LOG
    return worker_metric(data_type or kind, content, items, node_rank)
