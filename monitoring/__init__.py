"""The watch: Prometheus metrics of finished artifacts, the alerts on them, and the runbook."""
