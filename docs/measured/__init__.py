"""Every figure of docs/benchmarks.md, measured by one command with the code of one commit: ``make benchmarks``."""
