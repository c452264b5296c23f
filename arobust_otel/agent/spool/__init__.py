"""What waits on the disk until the master takes it. Nothing is imported here."""
