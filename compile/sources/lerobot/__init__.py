"""LeRobot datasets of versions 3.0 and 2.1, read without LeRobot."""
