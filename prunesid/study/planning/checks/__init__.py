"""Checks before a study's first hour: packages, hardware, checkpoint, data, tokens.

Each file checks one kind of thing and yields findings; `prunesid.study.planning.check` runs them
all. The hub and the machine are asked through two small interfaces, `hub.Hub` and
`machine.Machine`. Nothing is downloaded.
"""
