"""Ensemble's services, and what they share."""

import os

# gRPC's core writes to standard error by itself, past the log, and what it writes may be a stranger's own words with his own line breaks: a forged line of the
# log. It looks at this once, when it is loaded, so it is said before anything can load it. Whoever sets the variable gets what it says.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
