"""What has to be there before a study's first hour: packages, hardware, checkpoint, data, tokens.

Each file checks one kind of thing and yields findings; `prunesid.study.planning.check` runs them all. What
lies outside the process is asked through two small interfaces, `hub.Hub` and `machine.Machine`.
Nothing is downloaded.
"""
