"""Judgements: one file each, pure. A docstring is the rule's page in the manual (docs/rules.md).

A rule is a frozen dataclass whose fields are its settings. It has `name`, `priority` (root causes are small
numbers, symptoms large ones), `family` (an open root cause silences the symptoms of its family),
`hold_seconds`, `clear_seconds`, `judge(job, agents)` and `cleared(job, agents, incident)`.
"""
