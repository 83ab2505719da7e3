"""Run `mydocs` as `python -m mydocs`."""

from mydocs.cli.main import main

if __name__ == "__main__":
    main()
