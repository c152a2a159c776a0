"""The trainer: from the log to the next version.

intake.py    entries become messages, what is of no use is set apart    pure
join.py      impressions meet their clicks, in the log's own time       pure; what it holds: memory.py, early.py
joins.py     one for each partition, and one order of what closes       pure
sampling.py  which of it is learned from                                pure
trainer.py   entries in, optimiser steps out; all state in one place    pure
worker.py    read -> feed -> publish: Redis, disk, clock
__main__.py  settings, signals, metrics: `python -m service.training`
"""
