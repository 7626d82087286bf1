"""A node pack that fails when it is imported."""

raise ImportError("libnothing.so.1: cannot open shared object file: No such file or directory")
