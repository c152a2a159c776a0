"""The scoring process: rank."""
