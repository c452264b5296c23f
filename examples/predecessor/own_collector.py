"""A collector of one's own: two methods, and what they return is reported.

Run: python own_collector.py localhost:4317
"""

import random
import sys
import time

from arobust_otel import DataCollector, DiagnosisAgent, MasterClient


class RewardCollector(DataCollector):
    """Figures of a training script; a mapping becomes one metric per number."""

    def is_enabled(self):
        return True

    def collect_data(self):
        return {"reward": random.random(), "kl": 0.01}


client = MasterClient(master_addr=sys.argv[1] if len(sys.argv) > 1 else "localhost:50051")
agent = DiagnosisAgent()
agent.register_periodical_data_collector(RewardCollector(), time_interval=1)
agent.set_client(client)  # before or after

agent.start()
time.sleep(3)
agent.stop()
client.close()
