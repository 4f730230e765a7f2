"""One family of errors. A message is one line: what, the value, the remedy."""


class SpeccWarning(UserWarning):
    """What a user should know of a thing that works all the same; the command line prints it in one line."""


class SpeccError(Exception):
    """A mistake of the user's or of the input's, never of ours."""


class TreeError(SpeccError, ValueError):
    """A tree literal or a parent vector that is not a tree."""


class RecipeError(SpeccError, ValueError):
    """An unknown recipe or parameter, or a value out of range."""


class BundleError(SpeccError):
    """A bundle that is missing, damaged, or of another schema."""


class PromptError(SpeccError, ValueError):
    """A prompt that the session cannot take."""


class CaptureError(SpeccError):
    """A model that cannot be captured."""


class PassError(SpeccError):
    """A pass that did not find what it rewrites."""


class BackendError(SpeccError):
    """A backend that cannot build or run an engine here."""


def first_line(error: BaseException) -> str:
    """What another library's error says first; its kind where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
