"""Show run directories in trackers. Only this package imports MLflow. The run directory stays authoritative."""
