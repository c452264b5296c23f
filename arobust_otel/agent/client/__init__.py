"""The inside of MasterClient: from a report to its delivery. Nothing is imported here."""
