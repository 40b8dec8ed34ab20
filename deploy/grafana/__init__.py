"""Grafana's dashboards, made with its foundation SDK: `python -m deploy.grafana` writes dashboards/*.json."""
