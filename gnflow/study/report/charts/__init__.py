"""All charts that a report may have, in their order, with one file for each family."""
