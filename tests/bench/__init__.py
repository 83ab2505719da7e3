"""Time and commands of the runner beside what people use today: `python -m tests.bench`."""
