"""`agerank chaos`: what a promise about faults is held to. Real servers, real processes, real files, killed for real.

    trainer    a trainer killed over and over ends with the bits of one that never was
    redis      Redis killed and paused under load: no accepted event is lost, ranking goes on
    swaps      versions change under load: nothing fails, and no answer mixes two of them

    visitors   rankings and reports over HTTP, which are sent again until they are accepted
    counts     what the log holds then, and what its trainer made of it
    traffic    a log with everything in it that a network does to events
    lane       a folder, and the trainers that write there one after the other
    lives      trainers that can be killed, and what each was at when it died
    versions   what those leave behind, compared
    report     a bar, and what was found

A sub-command is one file and one line of `scripts.cli.COMMANDS`. Its function of that name takes the options and ends
with exit code 1 where what it is to prove does not hold.
"""
