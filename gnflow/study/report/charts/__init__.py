"""Every chart that a report may have, in its order: one file for each family."""
