"""What the library raises on purpose."""


class ReplicateError(ValueError):
    """Input or a state of the machine that the user can mend.

    The message names what was given, what was expected and what to do; the command line prints it without a traceback.
    """


class AbsentError(ReplicateError):
    """A data set, or a part of it, is not on this machine."""
