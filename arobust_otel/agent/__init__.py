"""The node agent: samples one job on one node and speaks to the master. Nothing is imported here."""
