"""How pages write settings."""

from __future__ import annotations

import json
from typing import Any


def value_text(value: Any) -> str:
    """Write a setting as JSON does, text without its quotes.

    Example:
        >>> value_text(None), value_text(True), value_text("elu")
        ('null', 'true', 'elu')
    """
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
