"""Checks before a study's first hour: packages, hardware, checkpoint, data, tokens.

Each file checks one kind of thing and returns findings; `prunesid.study.planning.check` runs them
all. Only `hub.Hub` asks the hub, and only `machine.Machine` the machine. Nothing is downloaded.
"""
