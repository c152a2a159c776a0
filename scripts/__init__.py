"""The commands: one file each, thin.

    cli       agerank: finds the command, imports only what it needs
    serve     run the scorer
    train     run the trainer
    demo      the whole loop on this machine, with simulated users
    replay    judge strategies on a log of uniformly random traffic
    ingest    warm start: a historical log through the very streams and trainer

Beside them, for people and CI: `check` and `test`, shell scripts.
"""
