"""One file, one destination. A forwarder sends once; queues, retries and counting are the runner's."""
