"""The shell: HTTP, Redis, disk, Prometheus, processes."""
