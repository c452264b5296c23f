"""Inside the training process and its launcher: beacon writer, hooks, watcher, start of the agent.

Loaded by every instrumented Python process, so it imports the standard library, `wrapt`, `model` and `guard`
only; frameworks are hooked when the user's own code imports them, never imported from here.
"""
