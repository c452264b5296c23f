"""Monitors that find the master by the environment, and a script that writes down its steps.

Run: arobust_MASTER_ADDR=localhost:4317 arobust_MONITOR_ENABLED=true python monitors.py metrics.json
"""

import sys
import time

from arobust_otel import TrainingMonitor
from arobust_otel.agent.monitor import write_training_metrics

path = sys.argv[1] if len(sys.argv) > 1 else "metrics.json"

write_training_metrics(path, step=1)
monitor = TrainingMonitor(path)  # starts ResourceMonitor, too
monitor.start()
for step in range(2, 5):
    time.sleep(0.5)  # a step of the training
    write_training_metrics(path, step)
monitor.report_step()  # it does so every 15 s by itself
time.sleep(1)
monitor.stop()
