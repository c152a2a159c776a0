"""Exploration methods: one published method a file, none importing another.

All satisfy `models.registry.Exploration`.
"""
