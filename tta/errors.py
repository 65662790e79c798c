"""The one exception that means "the user can fix this"."""


class InputError(ValueError):
    """Something that was given cannot be used: a name, a value, a file, a shape.

    The message is one line: the bad value, the allowed ones, the place, the remedy. The command line prints it
    without a traceback and exits with status 2.
    """


def first_line(error: BaseException) -> str:
    """What an exception says, in one line; its name if it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]
