"""Lets `python -m mydocs` do what `mydocs` does."""

from mydocs.cli.main import main

if __name__ == "__main__":
    main()
