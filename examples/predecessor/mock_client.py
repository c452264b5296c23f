"""Without a master: any object with the one method is a client. The predecessor's suggestion for tests.

Run: python mock_client.py
"""

from arobust_otel import LogCollector, StackCollector
from arobust_otel.common.constants import DiagnosisDataType
from arobust_otel.common.diagnosis_data import WorkerTrainingMetric


class MockClient:
    """Keeps what it is given."""

    def __init__(self):
        self.metrics = []

    def report_diagnosis_agent_metrics(self, metric):
        self.metrics.append(metric)


client = MockClient()
logs, stacks = LogCollector(), StackCollector()
for collector in (logs, stacks):
    collector.set_client(client)
logs.store_data("test log content")
stacks.store_data(stacks.collect_data())

assert all(isinstance(metric, WorkerTrainingMetric) for metric in client.metrics)
assert client.metrics[0].data_type == DiagnosisDataType.TRAINING_LOG
print([metric.data_type.name for metric in client.metrics])
