"""The history checker: `make history`."""
