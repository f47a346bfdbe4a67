"""Where your Extend credits go, and what fails, and why."""

__version__ = "0.1.0"
