"""Ways to break one rank of a training job for real, kept apart from everything that must find it out.

`plan` draws what will happen and under which names, and writes an ordinary looking extension file for
`train_gpt.py`; `courier` gives the order after the start. Nothing under `arobust_otel` that diagnoses knows
this package, and no word of it reaches the ranks.
"""
