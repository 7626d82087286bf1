"""A node pack for a version of the node API that is not there yet."""

NODE_API = 2

raise ImportError("what it imports is not there either, but that is not what is to be read")
