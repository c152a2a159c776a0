"""Worlds whose click probabilities are known, so that the best that could have been done is known too.

world       what all worlds are, and which seeds tune and which report
lives       items that are born and die
r6b         the shape of the Yahoo! R6B log
glm         GuideBoot's Bernoulli bandit over three attributes
ads         the shape of the Tencent ad logs: many fields, large pools, drift
fitted      semi-real: click probabilities fitted on a log, read from a file of arrays
"""
