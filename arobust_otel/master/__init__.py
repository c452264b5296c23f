"""Engine, delivery, query API, replay, and the wiring of the three roles: receive, judge, deliver."""
