"""The Grafana boards as code: `python -m dashboards.source` writes the JSON beside this folder."""
