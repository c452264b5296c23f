"""The predecessor's usage example: only the import line is another one.

Needs a master (`arobust master`). Run: python usage.py train.log localhost:4317
"""

import sys
import time

from arobust_otel import (
    DiagnosisAgent,
    LogCollector,
    MasterClient,
    MetricCollector,
    ResourceCollector,
    StackCollector,
)

training_log = sys.argv[1] if len(sys.argv) > 1 else "train.log"
address = sys.argv[2] if len(sys.argv) > 2 else "localhost:50051"

client = MasterClient(master_addr=address)

agent = DiagnosisAgent.singleton_instance(
    training_log_file=training_log,
    errors="#CUDA error: uncorrectable ECC#NVRM: Xid#",
    node_rank=0,
    local_world_size=1,
)
agent.set_client(client)
agent.register_periodical_data_collector(LogCollector(training_log), time_interval=60)
agent.register_periodical_data_collector(MetricCollector(), time_interval=60)
agent.register_periodical_data_collector(StackCollector(), time_interval=120)
agent.register_periodical_data_collector(ResourceCollector(), time_interval=30)

agent.start()
time.sleep(5)
agent.stop()
client.close()

print(client.stats())
