"""Offline evaluation.

worlds/     simulated ones with known click probabilities
driver      a strategy and its learner, over visits
loop        a strategy that rules the traffic of a world
r6b         reads the lines of a log of uniformly random display
open_bandit reads another such log
replay      judges a strategy on such a log, without bias
items       what visits refer to
catalogue   what is known of them besides a log
estimators  what a policy would have earned, from a log with propensities
intervals   of means over seeds, and of their quotients
"""
