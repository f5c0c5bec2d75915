"""The design of a study: from a study file to its trials, runs, costs and pipeline, and the choice among trials."""
