"""Define the root of the command line: open the streams, convert every error to text and exit code. I/O."""

import sys
from collections.abc import Sequence
from typing import Any

from mydocs.cli import errors
from mydocs.cli.light import LightGroup
from mydocs.cli.streams import opened


class Program(LightGroup):
    """The root group. It exits with the command's code, in tests as well."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        own_process: bool = False,
        **extra: Any,
    ) -> Any:
        """
        Run a command and exit with its code, unless an embedding program wants the error itself.

        :param own_process: the process ends with the command, so its stdout contains only the result, to the end
        """
        arguments = list(sys.argv[1:] if args is None else args)

        def invoke() -> Any:
            return super(Program, self).main(arguments, prog_name, complete_var, False, windows_expand_args, **extra)

        with opened(arguments, own_process=own_process) as streams:
            if not standalone_mode:
                return invoke()
            code = errors.run(streams, invoke) or int(streams.lost)
        sys.exit(code)
