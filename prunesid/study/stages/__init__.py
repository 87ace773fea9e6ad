"""The stages of a study, each from files to files. The scripts of the workflow call them.

    features -> information, select -> answer -> score -> compare -> table, figure -> publish

A stage that works arm by arm writes each finished arm into the content-addressed store, then one
small table of arm -> key. An interruption loses the arm in progress; a new arm is computed alone.
"""
