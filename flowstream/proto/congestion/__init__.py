"""Congestion control of the path to one viewer: what became of what was sent, what it carries, and when to send.

A delay-based and a loss-based estimate in the manner of Google congestion control (draft-ietf-rmcat-gcc-02), on
transport-wide feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01), with probing; and a pacer.
"""
