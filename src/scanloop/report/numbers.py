"""How the page writes numbers: with their interval, their unit, and no more digits than they carry."""

from collections.abc import Mapping
from typing import Any

DASH = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"


def number(value: Any, digits: int = 3) -> str:
    """A decimal number, or a dash where there is none."""
    return DASH if value is None else f"{value:,.{digits}f}".replace("-", MINUS)


def signed(value: Any, digits: int = 3) -> str:
    """A difference with its sign; nothing has none."""
    if value is None:
        return DASH
    written = f"{value:+.{digits}f}"
    return written.replace("-", MINUS) if float(written) else written[1:]


def count(value: Any) -> str:
    """A whole number, thousands apart."""
    return DASH if value is None else f"{value:,.0f}"


def counted(value: int, singular: str, plural: str = "") -> str:
    """A number with its noun: "1 image", "2 images"."""
    return f"{count(value)} {singular if value == 1 else plural or singular + 's'}"


def percent(share: Any, digits: int = 1) -> str:
    """A share in 0..1 in percent; a small one that would be rounded to nothing says so.

    >>> percent(0.423), percent(0.00000001, 2)
    ('42.3%', 'under 0.01%')
    """
    if share is None:
        return DASH
    least = 10.0**-digits
    return f"under {least:.{digits}f}%" if 0 < 100 * share < least / 2 else f"{100 * share:.{digits}f}%"


def euros(value: Any) -> str:
    """Money in cents; whole thousands without, fractions of a cent with four decimals.

    >>> euros(5000.0), euros(0.55), euros(0.0035), euros(0.00001)
    ('€5,000', '€0.55', '€0.0035', 'under €0.0001')
    """
    if value is None:
        return DASH
    if value and abs(value) < 0.01:
        return f"€{value:.4f}" if abs(value) >= 0.0001 else "under €0.0001"
    return f"€{value:,.0f}" if value and value % 1000 == 0 else f"€{value:,.2f}"


def duration(seconds: Any) -> str:
    """A duration in the largest two units that matter."""
    if seconds is None:
        return DASH
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def interval(entry: Mapping[str, Any] | None, difference: bool = False) -> str:
    """A value with its bounds: "0.912 (0.861 to 0.951)"; says so where it is undefined."""
    if not entry:
        return DASH
    if entry.get("value") is None:
        return "undefined"
    write = signed if difference else number
    return f"{write(entry['value'])} ({write(entry.get('low'))} to {write(entry.get('high'))})"


def confidence(entry: Mapping[str, Any] | None) -> str:
    """Name of an interval: "95% interval"."""
    return f"{100 * float((entry or {}).get('confidence') or 0.95):g}% interval"


def sentence(text: Any) -> str:
    """Text with a capital and a full stop; empty where there is none.

    >>> sentence("all checks hold")
    'All checks hold.'
    """
    words = str(text or "").strip()
    return words and words[0].upper() + words[1:] + ("" if words[-1] in ".!?" else ".")
