"""Between the vocabulary of `services.models` and its messages on the wire."""
