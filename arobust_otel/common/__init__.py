"""Constants and values of the package `arobust`, under their old names. Nothing is imported here.

Standard library only, so that a training process may load all of it.
"""
