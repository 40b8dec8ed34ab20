"""What runs a server beside others: containers, Prometheus with its alerts, Grafana with its dashboards."""
