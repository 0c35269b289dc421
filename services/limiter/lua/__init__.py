"""The parts of the script that decides inside Redis, in the order of their names."""
