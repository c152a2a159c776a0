"""`agerank bench`: what a promise about speed is held to, against rivals measured in the same run.

    engine     every method in our engine, against greedy, the plain network and the naive way
    http       our server against others that serve the same network without exploring
    swap       latency while versions change every second, and whether every answer fits its version
    train      the trainer against a bare loop
    join       the state of what waits for clicks
    freshness  from a click to an answer by who learned from it, and what versions cost
    memory     start to ready, and resident size
    gpu        the torch engine on an accelerator

    work       the network, versions and requests that all of them measure on
    exact      every answer held to the version that it names
    naive      the network and AGE written the obvious way
    plain      the network in bare onnxruntime
    measure    runs, medians, ratios
    report     the machine, a table or JSON, progress
    contenders the servers that are compared, started
    scorer     ours
    processes  servers in processes of their own, pinned to a core
    load       the client: closed and open loop
    users      the client as users, who click
    gauges     /metrics, and how much grew
    sizes      versions of a large model, full and deltas
    rivals/    the other servers

A sub-command is one file and one line of `scripts.cli.COMMANDS`. Its function of that name takes the options and ends
in `report.show`; `run(...) -> list[Row]` does the work, says on `tell` what it is at, and returns rows whose keys
docs/benchmarks.md explains.
"""
