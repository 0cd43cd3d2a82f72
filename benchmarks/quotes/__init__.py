"""What documents quote of the results, by the name in their markers; `update_docs.py` puts it there.

Each quote is a function that makes one piece of Markdown, and rounds as its table or sentence needs it.
"""

from __future__ import annotations

from collections.abc import Mapping

from . import accuracy, crf, engines, gpu, int8, runtime, serving
from .results import Quote

QUOTES: Mapping[str, Quote] = {
    **accuracy.QUOTES,
    **crf.QUOTES,
    **engines.QUOTES,
    **gpu.QUOTES,
    **int8.QUOTES,
    **runtime.QUOTES,
    **serving.QUOTES,
}
