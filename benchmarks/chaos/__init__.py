"""Chaos: a site at work while files and messages keep arriving and its processes are killed at random. `python -m benchmarks.chaos --help`.

`post` brings files and messages, `killing` keeps processes running and kills them, `laws` says what must hold in the end.
"""
