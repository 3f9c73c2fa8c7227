"""Conformance suites for what others plug in; subclass one in your tests and name your class."""
