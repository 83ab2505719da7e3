"""The tests of PyMongo itself against a local server: `nox -s driver-suite`."""
