"""Turn the settings of other tools into a spec, and name what has no counterpart. Their files are read, never run."""
