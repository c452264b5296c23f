"""Prints the alerts that it gets: stands where your on-call service would.

python pager.py [PORT]
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Pager(BaseHTTPRequestHandler):
    """Takes Alertmanager's webhooks."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        for alert in body["alerts"]:
            labels, notes = alert["labels"], alert["annotations"]
            named = json.dumps(labels, sort_keys=True)
            print(f"{alert['status'].upper():8}  {labels.get('alertname')}  {named}")
            print(f"          {notes.get('summary', '')}", flush=True)
        self.send_response(200)
        self.end_headers()

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing but alerts."""


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 9099
    ThreadingHTTPServer(("", port), Pager).serve_forever()
