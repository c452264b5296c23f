"""The demonstration: a real training, a real fault in one rank, and a check that the verdict is right.

It stands on the outside: it starts the same commands that a user starts and asks the same query API.
"""
