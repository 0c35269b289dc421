"""The command `ensemble`: a client of the gateway like any other, and a way to run the four services in one process."""
