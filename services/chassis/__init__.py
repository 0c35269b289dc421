"""What every service stands on: configuration, telemetry, errors, channels, health and the server itself."""
