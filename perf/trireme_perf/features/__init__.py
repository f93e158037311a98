"""What reading fresh features costs."""

from trireme_perf.features.reading import Settings, measure_reading

__all__ = ["Settings", "measure_reading"]
