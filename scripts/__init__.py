"""The commands: one file each, thin.

    cli       agerank: finds the command, imports only what it needs
    serve     run the scorer
    train     run the trainer                                           launch
    demo      the whole loop on this machine, with simulated users      demo_processes, demo_users, demo_figures
    models/   the versions of a lane, by hand
    ingest    a historical log through the very streams and trainer     history, kuairand*, recorder, ingest_report
    report    the papers' tables, in simulated worlds                   report_*, results, plots
    tune      options of a method that pay there                        tune_spaces
    world     a world fitted on a real log                              world_fits, upworthy_arms
    replay    judge strategies on a log of uniformly random traffic     replay_runs, replay_inputs, upworthy*
    ope       what another policy would have earned, from our own log   served_log
    rerun     a logged decision, computed again
    bench/    figures against rivals, of the engine, the servers, the trainer
    chaos/    what is promised about faults, under faults

What several need: worlds (by name, and a life in one), runs (many, in parallel, each kept), outputs (a file that is to
be written can be). Beside them `check` and `test`, shell scripts for people and CI, and `specs/`, the feature specs of
known data sets.
"""
