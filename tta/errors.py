"""The one exception that means "the user can fix this"."""


class InputError(ValueError):
    """Something that was given cannot be used: a name, a value, a file, a shape.

    The message is one line: the bad value, the allowed ones, the place, the remedy. The command line prints it
    without a traceback and exits with status 2.
    """
