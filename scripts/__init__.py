"""The commands: one file each, thin.

    cli       agerank: finds the command, imports only what it needs
    serve     run the scorer
    train     run the trainer
    demo      the whole loop on this machine, with simulated users      demo_processes, demo_users, demo_figures
    replay    judge strategies on a log of uniformly random traffic     replay_runs
    bench/    figures against rivals, of the engine, the servers, the trainer
    ingest    a historical log through the very streams and trainer     history, kuairand*, recorder, ingest_report

Beside them `check` and `test`, shell scripts for people and CI, and `specs/`, the feature specs of known data sets.
"""
