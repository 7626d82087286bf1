"""Mirror and blur pictures."""

from flowstream_acme.blur import blur
from flowstream_acme.mirror import Mirror

__all__ = ["Mirror", "blur"]

NODE_API = 1
