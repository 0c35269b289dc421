"""The limiter owns every permit and every breaker, and is the only one that writes their state."""
