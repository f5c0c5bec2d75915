"""Mirror run directories to MLflow. Only this package imports MLflow. The run directory stays authoritative."""
