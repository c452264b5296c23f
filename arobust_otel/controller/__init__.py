"""The predecessor's agent and data store, under their old names. Nothing is imported here."""
