"""Nouns and the dictionary of signals: standard library only, no clock, no I/O."""
