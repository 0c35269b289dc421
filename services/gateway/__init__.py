"""The gateway: what a valid request is, which ensemble it means, and how long it may take."""
