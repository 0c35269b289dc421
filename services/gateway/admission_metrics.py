"""What admission measures."""

from services.chassis import _semconv as semconv
from services.chassis.telemetry import Telemetry
from services.gateway.admission import Refusal

_BUCKETS_SECONDS = (0.0, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class AdmissionMetrics:
    """Records waits and refusals; nothing of whose they are."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._waits = telemetry.meter.create_histogram(
            semconv.ENSEMBLE_ADMISSION_WAIT,
            unit="s",
            description="Time that runs waited for their places.",
            explicit_bucket_boundaries_advisory=_BUCKETS_SECONDS,
        )
        self._refusals = telemetry.meter.create_counter(semconv.ENSEMBLE_ADMISSION_REFUSALS, unit="{run}", description="Runs that were refused for load.")

    def waited(self, seconds: float) -> None:
        """Record how long a run that has its place waited for it; 0 where it did not."""
        self._waits.record(seconds)

    def refused(self, reason: Refusal) -> None:
        """Count a refusal."""
        self._refusals.add(1, {semconv.ENSEMBLE_REASON: reason.value})
