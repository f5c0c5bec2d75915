"""The work on a study: its tasks in several processes at a time, on this machine or on a Ray cluster."""
