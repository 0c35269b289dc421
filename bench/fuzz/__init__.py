"""The fuzzer: `make fuzz`."""
