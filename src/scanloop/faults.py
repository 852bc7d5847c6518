"""What is wrong with values that pydantic refused: one message that lists every fault, and tells no password."""

import re
from typing import Any

from pydantic import ValidationError

CREDENTIALS = re.compile(r"//.*@")
QUERY = re.compile(r"(://[^?#']*)[?#].*(?=')")
"""What follows in an address: a signature or a token may stand there."""


def listed(subject: object, error: ValidationError) -> str:
    """Message that names each fault with its place and what was given there, a line each.

    Args:
        subject: What the values belong to, for example the path of their file.
        error: What pydantic found.
    """
    found = error.errors(include_url=False)
    inherited = [fault["input"] for fault in found if fault["loc"] == ("seed",)]  # each section has it: said once
    faults = [
        f"  {_place(fault['loc'])}{fault['msg']}{_given(fault['input'])}"
        for fault in found
        if len(fault["loc"]) < 2 or fault["loc"][-1] != "seed" or fault["input"] not in inherited
    ]
    return f"{subject}: {len(faults)} fault{'s' if len(faults) > 1 else ''}\n" + "\n".join(faults)


def _place(location: tuple[int | str, ...]) -> str:
    return f"{'.'.join(str(part) for part in location)}: " if location else ""


def _given(value: Any) -> str:
    shown = QUERY.sub(lambda found: f"{found[1]}?***", CREDENTIALS.sub("//***@", repr(value)))
    return "" if isinstance(value, dict) else f" (given: {shown})"
