"""Frames for the program that runs the graph."""

from __future__ import annotations

from flowstream import AudioFrame, Context, EncodedPacket, EndOfInput, Input, Node, Record, VideoFrame


class AppOut(Node, type="app-out"):
    """Hand frames to the Python program that runs the graph: ``async for frame in run.frames("out")``.

    A payload is taken from the edge when the program asks for one: what the program is too slow for waits there, or is
    dropped and counted there, as the edge says. In a live graph, what comes while nobody reads is thrown away; one
    without a live source waits for the first who reads. Without a program it takes what comes and keeps nothing.

    ```yaml
    flowstream: 1
    nodes:
      pattern: {type: test-pattern, size: 640x360, duration: 2s}
      out: {type: app-out, from: pattern}
    ```
    """

    anything = Input(VideoFrame, AudioFrame, EncodedPacket, Record, follows={"size", "extradata"}, doc="Any payload.")

    async def run(self, ctx: Context) -> None:
        """Hands over what comes, to its end."""
        from flowstream import PROGRAM, ProgramOutput

        read = unread = 0
        async with ctx.hold(PROGRAM, ProgramOutput.open) as program:
            ctx.ready()
            with program.giving(waits=not ctx.is_live) as me:
                while True:
                    await program.wanted(me)
                    try:
                        payload = await ctx.receive(self.anything)
                    except EndOfInput:
                        break
                    if program.give(payload):
                        read += 1
                        ctx.report(read=read)
                    else:
                        unread += 1
                        ctx.report(unread=unread)
            program.finish()
