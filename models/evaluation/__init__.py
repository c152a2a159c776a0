"""Offline evaluation.

simulator   a world with known click probabilities
r6b         reads the lines of a log of uniformly random display
replay      judges a strategy on such a log, without bias
"""
