"""The shell: HTTP, Redis, disk, Prometheus, processes. It drives `models` and decides nothing that they could.

    errors         every way the service says no
    events         the words on the streams: one encode and one decode each
    connections    how Redis is reached, and whether it can hold the log
    streams        the log: its keys, and the one order in which it is read
    appends        every way an entry enters the log
    valkey         an embedded server for who has no Redis
    durable        files and folders that are there whole or not at all
    checkpoints    versions on disk: saved whole or not at all, verified before use
    telemetry/     every instrument; the registry is injected
    logs           the shape of log lines
    ports          what cannot be listened on is told by the setting that names it
    settings       the only reader of file and environment, imported by entry points alone
    scoring/       the process that ranks      imports no torch
    training/      the process that learns

The two processes share streams and checkpoints and never import each other.
"""
