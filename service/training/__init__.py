"""The trainer: from the log to the next version.

join.py      impressions meet their clicks, in the log's own time       pure
trainer.py   entries in, optimiser steps out; all state in one place    pure
worker.py    read -> feed -> publish: Redis, disk, clock
__main__.py  settings, signals, metrics: `python -m service.training`
"""
