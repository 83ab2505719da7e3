"""Run `mydocs` as `python -m mydocs`. I/O."""

from mydocs.cli.main import main

if __name__ == "__main__":
    main()
