"""A study file to its runs: what is drawn, what is run, what it costs, its pipeline, and the choice among trials."""
